"""DVC's remote in the bucket: which objects a lock names, and pulling them with an answer when one is damaged.

DVC checks what it pulls (`verify`), drops what is wrong, and then says that the cache is not up to date. Which
object is at fault, and where, is told here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.dvc import REMOTE_PREFIX, DvcTree
from twinflow_core.errors import InfrastructureError
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.store import ObjectStore

READERS = 8
FOLDER = ".dir"


def pull(
    dvc: DvcTree,
    store: ObjectStore,
    stages: Mapping[str, Any],
    names: Sequence[str],
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Bring the outputs of some stages from the bucket, each checked by DVC's hash.

    Args:
        dvc: where to.
        store: the bucket.
        stages: the stages of the tree's dvc.lock.
        names: those to pull.
        on_line: takes what DVC prints.

    Raises:
        StoredObjectDamaged: an object in the bucket is lost, truncated or changed; the message names it.
        InfrastructureError: DVC failed for another reason.
    """
    done = dvc.run("pull", *names, on_line=on_line)
    if done.code == 0:
        return
    hashes = dict.fromkeys(each for name in names for each in _outputs(stages[name]))
    with ThreadPoolExecutor(READERS) as pool:
        wrong = [each for each in pool.map(lambda value: _fault(store, value), hashes) if each]
    if wrong:
        key, what = wrong[0]
        raise StoredObjectDamaged(
            f"DVC's remote holds {len(wrong)} object(s) that are not what was pushed: the first is {what}.",
            where=store.address(key),
            fix="Delete it from the bucket; then `dvc push` in a clone that has it, or a new run, puts it back.",
        )
    raise InfrastructureError(
        "`dvc pull` failed, though the bucket holds every object as it was pushed.",
        where=str(dvc.log),
        fix="Try again: the network may have damaged it on the way. Then read the log.",
    )


def object_key(value: str) -> str:
    """Where the remote keeps the object of an MD5, as dvc.lock writes it."""
    return f"{REMOTE_PREFIX}/files/md5/{value[:2]}/{value[2:]}"


def members(listing: bytes) -> list[str]:
    """The MD5 of every file of a folder, out of the object that lists them."""
    return [str(entry["md5"]) for entry in json.loads(listing)]


def _outputs(stage: Mapping[str, Any]) -> list[str]:
    return [str(out["md5"]) for out in stage.get("outs", [])]


def _fault(store: ObjectStore, value: str) -> tuple[str, str] | None:
    """The key of what is wrong about an output, the first of its files if it is a folder, and what it is."""
    found = _object_fault(store, value)
    if found or not value.endswith(FOLDER):
        return found
    files = dict.fromkeys(members(store.get(object_key(value))))
    return next(_faults(store, files), None)


def _faults(store: ObjectStore, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    return (found for value in values if (found := _object_fault(store, value)))


def _object_fault(store: ObjectStore, value: str) -> tuple[str, str] | None:
    key, state, size = object_key(value), hashlib.md5(usedforsecurity=False), 0
    try:
        for chunk in store.chunks(key):
            state.update(chunk)
            size += len(chunk)
    except ObjectMissing:
        return key, "lost"
    if state.hexdigest() == value.removesuffix(FOLDER):
        return None
    return key, f"damaged ({size} bytes of MD5 {state.hexdigest()[:8]}… where {value[:8]}… was pushed)"
