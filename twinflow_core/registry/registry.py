"""The registry of one model: publish versions, record decisions, and move channels by them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import (
    Action,
    Channel,
    ChannelState,
    Entry,
    StaleDecision,
    state_after,
    version_to_return_to,
)
from twinflow_core.registry.decision import new_decision_id, read_decision
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.manifest import Manifest, canonical_json
from twinflow_core.registry.names import require_name
from twinflow_core.registry.store import ObjectStore
from twinflow_core.registry.versions import Versions

HOLD_ATTEMPTS = 10


class ChannelHeld(TwinflowError):
    """Promotions to this channel are stopped until it is released."""


class Registry:
    """Versions, decisions and channels of one model, in one bucket.

    Versions, blobs and decisions never change once written; a channel changes only by a new entry of its log.
    All methods raise the errors of `ObjectStore`.

    Args:
        store: the bucket.
        model: the model's name: lower-case letters, digits and dashes.
    """

    def __init__(self, store: ObjectStore, model: str) -> None:
        require_name("model", model)
        self.store = store
        self.model = model
        self._prefix = f"registry/{model}"
        self._versions = Versions(store, model, self._prefix)

    def publish(self, package: Path, lineage: dict[str, Any], metrics: dict[str, Any]) -> str:
        """Upload a package folder as a version; see `Versions.publish`."""
        return self._versions.publish(package, lineage, metrics)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version; see `Versions.manifest`."""
        return self._versions.manifest(version)

    def versions(self) -> list[str]:
        """All published versions, in the order of their names."""
        return self._versions.all()

    def fetch(self, version: str, destination: Path) -> Path:
        """Download a version to `<destination>/<version>`, checked; see `Versions.fetch`."""
        return self._versions.fetch(version, destination)

    def verify(self, version: str) -> list[str]:
        """Read every byte of a version back: one sentence a problem; see `Versions.verify`."""
        return self._versions.verify(version)

    def record_decision(self, document: dict[str, Any]) -> str:
        """Write a decision; it can never be changed, only followed by another.

        Args:
            document: at least the fields of `decision.Decision`; anything else is kept beside them.

        Returns:
            Its id, which sorts by time.

        Raises:
            TwinflowError: a field is missing or wrong, or a number is not finite.
        """
        read_decision(document, "the decision to record")
        if document.get("model", self.model) != self.model:
            raise TwinflowError(
                f"The decision is about {document['model']!r}, not {self.model!r}.",
                where="the decision to record",
                fix="Record it in the registry of its own model.",
            )
        identity = new_decision_id()
        body = canonical_json({**document, "id": identity, "model": self.model})
        if not self.store.put(self._decision_key(identity), body, if_absent=True):
            raise TwinflowError(
                "This decision's id is taken.", where=self._decision_key(identity), fix="Judge again."
            )
        return identity

    def decision(self, identity: str) -> dict[str, Any]:
        """A decision as it was recorded. Raises `TwinflowError` if there is none, or it cannot be read."""
        key = self._decision_key(identity)
        where = self.store.address(key)
        try:
            document = json.loads(self.store.get(key))
        except ObjectMissing:
            raise TwinflowError(
                f"There is no decision {identity} about {self.model}.",
                where=where,
                fix="Judge the candidate.",
            ) from None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise StoredObjectDamaged(
                "The decision is damaged.", where=where, fix="Judge the candidate again."
            )
        return document

    def decisions(self) -> list[str]:
        """The ids of all decisions, oldest first."""
        folder = f"{self._prefix}/decisions/"
        return [info.key.removeprefix(folder).removesuffix(".json") for info in self.store.list(folder)]

    def head(self, channel: str) -> ChannelState:
        """What a channel serves now."""
        return state_after(self._channel(channel).head())

    def history(self, channel: str) -> list[Entry]:
        """A channel's entries, first to last."""
        return self._channel(channel).history()

    def promote(
        self,
        channel: str,
        version: str,
        decision_id: str,
        expected_generation: int,
        actor: str,
        reason: str,
    ) -> Entry:
        """Make a version the one that a channel serves. All or nothing; of racing promotions one wins.

        Called again with a decision that is already carried out as the channel's last entry, it gives that
        entry: a run that died after the commit can simply be repeated.

        Args:
            expected_generation: the generation that the decision was made against.

        Raises:
            StaleDecision: the channel has moved on, before or while this ran, or the decision expired.
            ChannelHeld: promotions are stopped.
            TwinflowError: the decision does not say so, is about something else, or was a dry run.
            StoredObjectDamaged: a file of the version is lost or damaged; the channel is untouched.
        """
        log = self._channel(channel)
        head = log.head()
        if head and head.action == "promote" and (head.decision, head.version) == (decision_id, version):
            return head
        self._require_decision(channel, version, decision_id, expected_generation)
        state = state_after(head)
        if state.generation != expected_generation:
            raise StaleDecision(
                f"The decision was made against generation {expected_generation} of {channel}, "
                f"which is now at generation {state.generation}.",
                where=f"decision {decision_id}",
                fix="Judge the candidate again.",
            )
        if state.held:
            raise ChannelHeld(
                f"{channel} is held: promotions are stopped.",
                where=f"{channel}, generation {state.generation}",
                fix=f"See why in `twinflow history`; `twinflow release {channel}` ends it.",
            )
        self._versions.require_intact(version)
        return log.append(
            head, "promote", version=version, held=False, decision=decision_id, actor=actor, reason=reason
        )

    def rollback(self, channel: str, actor: str, reason: str, to: str | None = None) -> Entry:
        """Go back to an earlier version, verified first. Allowed while held, and leaves a hold in place.

        Args:
            to: a version that this channel has served; without it, the one before the present one. A version
                that was rolled back from is not gone back to unless it is named.

        Raises:
            StaleDecision: somebody else changed the channel meanwhile.
            TwinflowError: there is nothing to go back to.
            StoredObjectDamaged: the version to go back to is damaged; the channel is untouched.
        """
        log = self._channel(channel)
        entries = log.history()
        head = entries[-1] if entries else None
        target = version_to_return_to(channel, entries, to)
        self._versions.require_intact(target)
        return log.append(
            head,
            "rollback",
            version=target,
            held=state_after(head).held,
            decision=None,
            actor=actor,
            reason=reason,
        )

    def hold(self, channel: str, actor: str, reason: str) -> Entry:
        """Stop promotions to a channel; what serves goes on serving, and rollback stays possible."""
        return self._set_held(channel, True, actor, reason)

    def release(self, channel: str, actor: str, reason: str) -> Entry:
        """Allow promotions again."""
        return self._set_held(channel, False, actor, reason)

    def _set_held(self, channel: str, held: bool, actor: str, reason: str) -> Entry:
        log = self._channel(channel)
        action: Action = "hold" if held else "release"
        for _ in range(HOLD_ATTEMPTS):
            head = log.head()
            state = state_after(head)
            if state.held == held:
                raise TwinflowError(
                    f"{channel} is {'held already' if held else 'not held'}.",
                    where=f"{channel}, generation {state.generation}",
                    fix="Nothing needs to be done.",
                )
            try:
                return log.append(
                    head,
                    action,
                    version=state.version,
                    held=held,
                    decision=None,
                    actor=actor,
                    reason=reason,
                )
            except StaleDecision:
                # A hold does not depend on what serves: it is made against whatever won.
                continue
        raise StaleDecision(
            f"{channel} changes too fast to {action} it.", where=channel, fix="Stop its runs, then try again."
        )

    def _require_decision(self, channel: str, version: str, identity: str, generation: int) -> None:
        decision = read_decision(self.decision(identity), f"decision {identity}")
        wanted = {"candidate": version, "channel": channel, "outcome": "promote", "mode": "enforce"}
        for name, value in wanted.items():
            found = getattr(decision, name)
            if found != value:
                raise TwinflowError(
                    f"The decision does not allow this promotion: its {name} is {found!r}, not {value!r}.",
                    where=f"decision {identity}",
                    fix="Judge this candidate for this channel, or have it approved.",
                )
        if decision.expires is not None and datetime.now(UTC) >= decision.expires:
            raise StaleDecision(
                f"The decision expired at {decision.expires:%Y-%m-%d %H:%M} UTC.",
                where=f"decision {identity}",
                fix="Judge the candidate again.",
            )
        if decision.generation != generation:
            raise StaleDecision(
                f"The decision was made against generation {decision.generation} of {channel}, "
                f"not {generation}.",
                where=f"decision {identity}",
                fix="Judge the candidate again.",
            )

    def _channel(self, name: str) -> Channel:
        require_name("channel", name)
        return Channel(self.store, f"{self._prefix}/channels/{name}")

    def _decision_key(self, identity: str) -> str:
        require_name("decision", identity)
        return f"{self._prefix}/decisions/{identity}.json"
