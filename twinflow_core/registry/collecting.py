"""The sign that a garbage collection is at work: one at a time, and whoever publishes meanwhile waits for its end.

A collection raises the sign, then looks what is needed, then deletes. A publish writes its files, then its
manifest, then looks for the sign. So either the collection finds the manifest and spares its files, or the
publish finds the sign, waits, and puts back what was taken. No age and no clock is needed for that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.conditional_writes import require_conditional_writes
from twinflow_core.registry.faults import ObjectMissing
from twinflow_core.registry.manifest import canonical_json
from twinflow_core.registry.store import ObjectStore

# A collection deletes nothing later than this after it raised the sign, by its own clocks.
LEASE = timedelta(minutes=40)
# A sign this old, by the server's clock, is of a collection that died. S3 takes a signed request for 15 minutes.
DEAD_AFTER = LEASE + timedelta(minutes=20)
WAIT_SECONDS = 300.0
LOOK_EVERY_SECONDS = 0.5


class Sign:
    """The sign of a collection at work.

    Args:
        store: the bucket.
        prefix: the model's folder in the bucket, without a slash at the end.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.key = f"{prefix}/collecting.json"
        self._body = canonical_json({"nonce": uuid4().hex})
        self._since = (0.0, 0.0)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Keep the sign up for the enclosed work.

        Raises:
            TwinflowError: another collection is at work, or the store has no conditional writes.
        """
        require_conditional_writes(self.store)
        self._since = _clocks()
        if not self.store.put(self.key, self._body, if_absent=True):
            if self._is_of_the_living():
                raise TwinflowError(
                    "Another garbage collection is at work.",
                    where=self.store.address(self.key),
                    fix=f"Wait until it ends; one that died counts for {_minutes(DEAD_AFTER)} minutes.",
                )
            self.store.put(self.key, self._body)
        try:
            yield
        finally:
            if self._is_ours():
                self.store.delete(self.key)

    def require(self) -> None:
        """Refuse to go on deleting when the sign is no longer ours, or will soon be taken for a dead one's."""
        elapsed = max(now - then for now, then in zip(_clocks(), self._since, strict=True))
        if elapsed > LEASE.total_seconds() or not self._is_ours():
            raise InfrastructureError(
                "The garbage collection was overtaken or took too long, and stopped.",
                where=self.store.address(self.key),
                fix="Nothing that is needed was removed. Run `twinflow gc` again: it goes on where it was.",
            )

    def wait_for_its_end(self) -> None:
        """Return as soon as no collection is at work.

        Raises:
            InfrastructureError: one is, for longer than `WAIT_SECONDS`.
        """
        start = time.monotonic()
        while self._is_of_the_living():
            if time.monotonic() - start > WAIT_SECONDS:
                raise InfrastructureError(
                    "A garbage collection keeps this publish waiting.",
                    where=self.store.address(self.key),
                    fix="Once `twinflow gc` has ended, run this again; "
                    f"one that died counts for {_minutes(DEAD_AFTER)} minutes.",
                )
            time.sleep(LOOK_EVERY_SECONDS)

    def _is_of_the_living(self) -> bool:
        sign = self.store.head(self.key)
        return sign is not None and self.store.clock() - sign.modified < DEAD_AFTER

    def _is_ours(self) -> bool:
        try:
            return self.store.get(self.key) == self._body
        except ObjectMissing:
            return False


def _clocks() -> tuple[float, float]:
    """Two clocks in seconds: one is set back by people, the other stands while a machine sleeps."""
    return time.monotonic(), time.time()


def _minutes(span: timedelta) -> int:
    return int(span.total_seconds() // 60)
