"""A channel: an append-only, numbered log in which each entry is created once, by whoever comes first.

Creating entry N+1 with If-None-Match:* is THE commit of a promotion; nothing else is. `champion.json` beside
the log only says where to start looking and may lag. Every entry carries the channel's whole state (the
version that serves, held or not), so that the last entry alone answers what is live.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import Field, ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.conditional_writes import require_conditional_writes
from twinflow_core.registry.duties import duty
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.manifest import Record, Sha256, canonical_json
from twinflow_core.registry.store import ObjectStore

GENERATION_DIGITS = 20
Action = Literal["promote", "rollback", "hold", "release"]
SERVING_ACTIONS = ("promote", "rollback")


class StaleDecision(TwinflowError):
    """The channel moved on: what was decided against one generation does not hold for the next."""


class Entry(Record):
    """One line of a channel's history.

    `version` serves after it (None before the first promotion), `previous` served before it; `held` says
    whether promotions are stopped after it; `decision` is the record that allowed it, `approval` the number of
    the person's answer that it rests on, where there is one.
    """

    generation: Annotated[int, Field(ge=1)]
    action: Action
    version: Sha256 | None
    previous: Sha256 | None
    held: bool
    decision: str | None
    approval: Annotated[int, Field(ge=1)] | None = None
    actor: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    at: datetime
    nonce: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class ChannelState:
    """What a channel is now: its generation (0: no history), the version that serves, whether it is held."""

    generation: int
    version: str | None
    held: bool


class Pointer(Record):
    """The cached pointer: a generation that existed when it was written."""

    generation: Annotated[int, Field(ge=1)]
    version: Sha256 | None


class Channel:
    """The log of one environment (`staging`, `production`) of one model.

    Args:
        store: where.
        prefix: the channel's folder in the bucket, without a slash at the end.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix

    def _key(self, generation: int) -> str:
        return f"{self.prefix}/log/{generation:0{GENERATION_DIGITS}d}.json"

    def entry(self, generation: int) -> Entry | None:
        """One entry, or None if the log is not that long.

        Raises:
            StoredObjectDamaged: the object is no entry of this generation.
        """
        key = self._key(generation)
        try:
            body = self.store.get(key)
        except ObjectMissing:
            return None
        try:
            entry = Entry.model_validate_json(body)
        except ValidationError:
            entry = None
        if entry is None or entry.generation != generation:
            raise StoredObjectDamaged(
                "An entry of the channel's log is damaged.",
                where=self.store.address(key),
                fix="Restore this object from a backup of the bucket; nothing is promoted meanwhile.",
            )
        return entry

    def head(self) -> Entry | None:
        """The last entry, or None if the channel has no history yet."""
        last = self._entry_pointed_at() or self._last_listed()
        while last is not None:
            following = self.entry(last.generation + 1)
            if following is None:
                break
            last = following
        return last

    def history(self) -> list[Entry]:
        """All entries, first to last.

        Raises:
            StoredObjectDamaged: an entry is missing in the middle, or one is damaged.
        """
        last = self._last_listed()
        return [self._present(generation) for generation in range(1, (last.generation if last else 0) + 1)]

    def serving_since(self, head: Entry | None) -> int:
        """The generation that made what serves after `head` serve; 0 if nothing was ever promoted.

        A hold and a release leave what serves as it is: what was compared with it still holds.

        Raises:
            StoredObjectDamaged: an entry is missing in the middle, or one is damaged.
        """
        entry = head
        while entry is not None and entry.action not in SERVING_ACTIONS:
            entry = self._present(entry.generation - 1) if entry.generation > 1 else None
        return entry.generation if entry else 0

    def _present(self, generation: int) -> Entry:
        entry = self.entry(generation)
        if entry is None:
            raise StoredObjectDamaged(
                "The channel's log has a gap.",
                where=self.store.address(self._key(generation)),
                fix="Restore this object from a backup of the bucket.",
            )
        return entry

    def append(
        self,
        head: Entry | None,
        action: Action,
        *,
        version: str | None,
        held: bool,
        decision: str | None,
        actor: str,
        reason: str,
        approval: int | None = None,
    ) -> Entry:
        """Create the entry after `head`: the commit.

        Raises:
            StaleDecision: somebody else created that entry first.
            StoredObjectDamaged: the log once was longer: an entry after `head` is lost.
            NotThisIdentity: the store lets others alone change this channel.
            TwinflowError: the store's conditional writes do not work, or actor or reason is empty.
        """
        for name, text in (("actor", actor), ("reason", reason)):
            if not text.strip():
                raise TwinflowError(
                    f"The {name} is empty.", where=f"{action} on {self.prefix}", fix=f'Say it: --{name} "..."'
                )
        with duty(self._changing(), "promoter"):
            require_conditional_writes(self.store)
        self._require_nothing_lost_after(head)
        entry = Entry(
            generation=(head.generation if head else 0) + 1,
            action=action,
            version=version,
            previous=head.version if head else None,
            held=held,
            decision=decision,
            approval=approval,
            actor=actor,
            reason=reason,
            at=datetime.now(UTC),
            nonce=uuid4().hex,
        )
        body = canonical_json(entry.model_dump(mode="json"))
        with duty(self._changing(), "promoter"):
            created = self.store.put(self._key(entry.generation), body, if_absent=True)
        if not created:
            raise StaleDecision(
                f"Somebody else changed the channel first: generation {entry.generation} exists already.",
                where=self.store.address(self._key(entry.generation)),
                fix="Look at `twinflow history` and decide again.",
            )
        self._point_at(entry)
        return entry

    def _changing(self) -> str:
        return f"change the channel {PurePosixPath(self.prefix).name}"

    def _require_nothing_lost_after(self, head: Entry | None) -> None:
        """Refuse to fill the place of an entry that the store lost: the log would tell another past."""
        following = (head.generation if head else 0) + 1
        pointer = self._pointer()
        longest = max(self._last_number(), pointer.generation if pointer else 0)
        if longest >= following and self.entry(following) is None:
            raise StoredObjectDamaged(
                f"An entry of the channel's log is lost: generation {following} of {longest}.",
                where=self.store.address(self._key(following)),
                fix="Restore this object from a backup of the bucket; nothing is promoted meanwhile.",
            )

    def _point_at(self, entry: Entry) -> None:
        pointer = Pointer(generation=entry.generation, version=entry.version)
        try:
            self.store.put(f"{self.prefix}/champion.json", canonical_json(pointer.model_dump(mode="json")))
        except TwinflowError:
            # The entry is committed; readers find it from any older pointer, or from the listing.
            return

    def _pointer(self) -> Pointer | None:
        try:
            return Pointer.model_validate_json(self.store.get(f"{self.prefix}/champion.json"))
        except (ObjectMissing, ValidationError):
            return None

    def _entry_pointed_at(self) -> Entry | None:
        pointer = self._pointer()
        return self.entry(pointer.generation) if pointer else None

    def _last_listed(self) -> Entry | None:
        last = self._last_number()
        return self.entry(last) if last else None

    def _last_number(self) -> int:
        """The highest generation that the listing shows, 0 if there is none."""
        last = 0
        for info in self.store.list(f"{self.prefix}/log/"):
            number = PurePosixPath(info.key).stem
            if not number.isdecimal() or info.key != self._key(int(number)):
                raise StoredObjectDamaged(
                    "The channel's log holds a foreign object.",
                    where=self.store.address(info.key),
                    fix="Remove this object.",
                )
            last = int(number)
        return last


def state_after(head: Entry | None) -> ChannelState:
    """The state of a channel whose last entry this is."""
    return ChannelState(head.generation, head.version, head.held) if head else ChannelState(0, None, False)


def version_to_return_to(channel: str, entries: list[Entry], to: str | None) -> str:
    """Which version a rollback goes to, by the channel's past (see `Registry.rollback`)."""
    standing: list[str] = []
    served: list[str] = []
    for entry in entries:
        if entry.version is None or entry.action not in SERVING_ACTIONS:
            continue
        served.append(entry.version)
        if entry.action == "rollback" and entry.version in standing:
            while standing[-1] != entry.version:
                standing.pop()
        elif not standing or standing[-1] != entry.version:
            standing.append(entry.version)
    if to is None and len(standing) > 1:
        return standing[-2]
    if to is not None and to in served and to != standing[-1]:
        return to
    raise TwinflowError(
        f"{channel} cannot go back to {to[:12]}: it serves that, or never has."
        if to
        else f"{channel} has nothing to go back to.",
        where=f"{channel}, generation {len(entries)}",
        fix="`twinflow history` shows what it has served; `twinflow rollback --to VERSION` goes to any of it.",
    )
