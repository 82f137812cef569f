"""Whether a store can be trusted to let exactly one of several writers create an object.

Servers that do not know If-None-Match overwrite silently, and some that know it are racy (SeaweedFS up to
4.16 let three of three racing writers win), so the ability is tried out, not looked up.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.faults import NotSupported
from twinflow_core.registry.store import ObjectStore

PROBE_PREFIX = ".twinflow-probe/"
RACERS = 8

_known: dict[tuple[str, str], ConditionalWrites] = {}
_known_lock = threading.Lock()


@dataclass(frozen=True)
class ConditionalWrites:
    """Whether conditional creation works; `reason` says what was seen."""

    work: bool
    reason: str


def probe_conditional_writes(store: ObjectStore) -> ConditionalWrites:
    """Create, re-create and race on throw-away objects; the answer is kept per endpoint and bucket.

    Raises:
        TwinflowError: the store cannot be written at all (see `faults.explained`).
    """
    place = (store.endpoint, store.bucket)
    with _known_lock:
        if place not in _known:
            _known[place] = _probe(store)
        return _known[place]


def require_conditional_writes(store: ObjectStore) -> None:
    """Refuse a store on which two promotions could both win.

    Raises:
        TwinflowError: creation under a condition does not work there.
    """
    found = probe_conditional_writes(store)
    if not found.work:
        raise TwinflowError(
            f"This store cannot hold a registry: {found.reason}.",
            where=f"{store.address('')} at {store.endpoint}",
            fix="Use a server with working If-None-Match: AWS S3, Cloudflare R2, SeaweedFS 4.17 or newer.",
        )


def _probe(store: ObjectStore) -> ConditionalWrites:
    folder = f"{PROBE_PREFIX}{uuid.uuid4().hex}/"
    try:
        store.put(folder + "create", b"first", if_absent=True)
        if store.put(folder + "create", b"second", if_absent=True):
            return ConditionalWrites(False, "an existing object was overwritten in spite of If-None-Match")
        with ThreadPoolExecutor(RACERS) as pool:
            won = list(
                pool.map(
                    lambda racer: store.put(folder + "race", f"racer {racer}".encode(), if_absent=True),
                    range(RACERS),
                )
            )
        if sum(won) != 1:
            return ConditionalWrites(False, f"{sum(won)} of {RACERS} racing writers were told that they won")
        return ConditionalWrites(True, f"of {RACERS} racing writers exactly one won")
    except NotSupported:
        return ConditionalWrites(False, "the server does not implement If-None-Match")
    finally:
        for name in ("create", "race"):
            store.delete(folder + name)
