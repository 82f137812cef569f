"""The registry of one model: publish versions, record decisions and answers, and move channels by them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.answers import Answer, Answers
from twinflow_core.registry.channel import (
    Action,
    Channel,
    ChannelState,
    Entry,
    StaleDecision,
    state_after,
    version_to_return_to,
)
from twinflow_core.registry.judgements import Judgements
from twinflow_core.registry.manifest import Manifest
from twinflow_core.registry.names import require_name, require_one_of
from twinflow_core.registry.permission import (
    Judgement,
    judge_again,
    require_judged_for,
    require_passed,
    require_word,
)
from twinflow_core.registry.store import ObjectStore
from twinflow_core.registry.versions import Versions

HOLD_ATTEMPTS = 10


class ChannelHeld(TwinflowError):
    """Promotions to this channel are stopped until it is released."""


class Registry:
    """Versions, decisions and channels of one model, in one bucket.

    Versions, blobs and decisions never change once written, a channel only by a new entry of its log. All methods
    raise the errors of `ObjectStore`.

    Args:
        store: the bucket.
        model: the model's name: lower-case letters, digits and dashes.
        approval: the channels that nothing is promoted to without a person's approval.
        known: the channels that there are, besides those that have a history; None for any.

    Attributes:
        prefix: the model's folder in the bucket, without a slash at the end.
        published: the versions.
        judgements: the gates' decisions.
        answers: what people answered about candidates.
    """

    def __init__(
        self,
        store: ObjectStore,
        model: str,
        approval: Collection[str] = (),
        known: Collection[str] | None = None,
    ) -> None:
        require_name("model", model)
        self.store = store
        self.model = model
        self.approval = frozenset(approval)
        self.known = known
        self.prefix = f"registry/{model}"
        self.published = Versions(store, model, self.prefix)
        self.judgements = Judgements(store, model, self.prefix)
        self.answers = Answers(store, self.prefix)

    def publish(self, package: Path, lineage: dict[str, Any], metrics: dict[str, Any]) -> str:
        """Upload a package folder as a version; see `Versions.publish`."""
        return self.published.publish(package, lineage, metrics)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version; see `Versions.manifest`."""
        return self.published.manifest(version)

    def versions(self) -> list[str]:
        """All published versions, in the order of their names."""
        return self.published.all()

    def fetch(self, version: str, destination: Path) -> Path:
        """Download a version to `<destination>/<version>`, checked; see `Versions.fetch`."""
        return self.published.fetch(version, destination)

    def verify(self, version: str) -> list[str]:
        """Read every byte of a version back: one sentence a problem; see `Versions.verify`."""
        return self.published.verify(version)

    def record_decision(self, document: dict[str, Any]) -> str:
        """Write a decision of the gates and give its id; see `Judgements.record`."""
        return self.judgements.record(document)

    def decision(self, identity: str) -> dict[str, Any]:
        """A decision as it was recorded; see `Judgements.document`."""
        return self.judgements.document(identity)

    def decisions(self) -> list[str]:
        """The ids of all decisions, oldest first."""
        return self.judgements.ids()

    def judgement_about(self, version: str, channel: str) -> Judgement:
        """What the gates decided about a version on a channel; see `Judgements.about`."""
        log = self._channel(channel)
        return self.judgements.about(version, channel, log.serving_since(log.head()))

    def approve(self, channel: str, version: str, actor: str, reason: str) -> Answer:
        """Record a person's yes to a version on a channel as it is now; moves nothing.

        Raises:
            StaleDecision: the gates' decision expired or is history, or somebody else answered just now.
            TwinflowError: the gates never judged this version, rejected it, or ran dry.
        """
        log = self._channel(channel)
        head = log.head()
        since, generation = log.serving_since(head), state_after(head).generation
        judgement = self.judgements.about(version, channel, since)
        self._require_judged(judgement, channel, version, generation, since)
        seen = (judgement.id, judgement.sha256)
        return self.answers.record("approve", version, channel, generation, seen, actor, reason)

    def reject(self, channel: str, version: str, actor: str, reason: str) -> Answer:
        """Record a person's no: this version is not promoted to this channel until somebody says yes.

        Raises:
            UnknownVersion: there is no such version.
        """
        self.manifest(version)
        generation = self.head(channel).generation
        return self.answers.record("reject", version, channel, generation, None, actor, reason)

    def channels(self) -> list[str]:
        """The channels that have a history, in the order of their names."""
        folder = f"{self.prefix}/channels/"
        return sorted({info.key.removeprefix(folder).split("/")[0] for info in self.store.list(folder)})

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
            decision_id: the gates' decision about this version: made for this channel, or for another one that
                serves the version now.
            expected_generation: the channel's generation that the caller acts against; for a decision made
                for this channel, the one it was made against. Holds and releases since then do no harm.

        Raises:
            StaleDecision: the channel has moved on, before or while this ran, or the decision expired.
            ChannelHeld: promotions are stopped.
            ApprovalMissing: a person must approve it first.
            RejectedByPerson: a person's last answer is no.
            TwinflowError: the decision does not say so, is about something else, or was a dry run.
            StoredObjectDamaged: a file of the version is lost or damaged; the channel is untouched.
        """
        log = self._channel(channel)
        head = log.head()
        if head and head.action == "promote" and (head.decision, head.version) == (decision_id, version):
            return head
        state, since = state_after(head), log.serving_since(head)
        judgement = self.judgements.get(decision_id)
        self._require_judged(judgement, channel, version, state.generation, since)
        made_for, against = judgement.decision.channel, judgement.decision.generation
        if made_for == channel and against != expected_generation:
            what = (
                f"The decision was made against generation {against} of {channel}, not {expected_generation}."
            )
            raise StaleDecision(what, where=judgement.where, fix=judge_again(judgement))
        if not since <= expected_generation <= state.generation:
            raise StaleDecision(
                f"{channel} is at generation {state.generation} now, no longer at {expected_generation}.",
                where=judgement.where,
                fix="Look at `twinflow history`, then promote again.",
            )
        if state.held:
            raise ChannelHeld(
                f"{channel} is held: promotions are stopped.",
                where=f"{channel}, generation {state.generation}",
                fix=f'`twinflow history` says why; `twinflow release --channel {channel} --reason "..."` ends it.',
            )
        approval = require_word(
            judgement,
            channel,
            self.answers.latest(version, channel),
            channel in self.approval,
            since,
            datetime.now(UTC),
        )
        self.published.require_intact(version)
        return log.append(
            head,
            "promote",
            version=version,
            held=False,
            decision=decision_id,
            actor=actor,
            reason=reason,
            approval=approval.number if approval else None,
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
        self.published.require_intact(target)
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

    def _require_judged(
        self, judgement: Judgement, channel: str, version: str, generation: int, since: int
    ) -> None:
        made_for = judgement.decision.channel
        require_passed(judgement, version)
        stands_there = made_for != channel and self.head(made_for).version == version
        require_judged_for(judgement, channel, generation, since, stands_there, datetime.now(UTC))

    def _channel(self, name: str) -> Channel:
        require_name("channel", name)
        if self.known is not None and name not in self.known:
            require_one_of("channel", name, [*self.known, *self.channels()])
        return Channel(self.store, f"{self.prefix}/channels/{name}")
