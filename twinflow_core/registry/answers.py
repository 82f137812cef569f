"""What people answered about a candidate for a channel: a numbered list of records that never change.

The list lies under the candidate, apart from the gates' decisions, so that an identity that trains can be
kept from writing it. Whoever changes their mind answers again: the last answer counts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import AwareDatetime, Field, ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import StaleDecision
from twinflow_core.registry.conditional_writes import require_conditional_writes
from twinflow_core.registry.duties import duty
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.manifest import Record, Sha256, canonical_json
from twinflow_core.registry.names import require_name, require_version
from twinflow_core.registry.store import ObjectStore

NUMBER_DIGITS = 6
VALID_FOR = timedelta(hours=72)
Word = Literal["approve", "reject"]


class Answer(Record):
    """One person's answer.

    `decision` is the gates' decision that was approved and `decision_sha256` what it said (both None for a
    rejection of what was never judged); `generation` the channel's when the answer was given. An approval
    ends at `expires`; a rejection lasts until somebody answers otherwise.
    """

    number: Annotated[int, Field(ge=1)]
    answer: Word
    candidate: Sha256
    channel: str
    generation: Annotated[int, Field(ge=0)]
    decision: str | None
    decision_sha256: Sha256 | None
    actor: Annotated[str, Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]
    at: AwareDatetime
    expires: AwareDatetime | None
    nonce: Annotated[str, Field(min_length=1)]

    def is_open(self, now: datetime) -> bool:
        """Whether this allows a promotion at this time, by itself."""
        return self.answer == "approve" and (self.expires is None or now < self.expires)


class Answers:
    """The answers about the candidates of one model.

    Args:
        store: the bucket.
        prefix: the model's folder in the bucket, without a slash at the end.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.prefix = f"{prefix}/approvals"

    def about(self, version: str, channel: str) -> list[Answer]:
        """All answers about a version for a channel, first to last.

        Raises:
            StoredObjectDamaged: one is missing or damaged.
        """
        keys = [info.key for info in self.store.list(self._folder(version, channel))]
        answers = [self._read(key) for key in keys]
        wanted = [(number, version, channel) for number in range(1, len(keys) + 1)]
        if [(each.number, each.candidate, each.channel) for each in answers] != wanted:
            raise StoredObjectDamaged(
                "The answers about this candidate have a gap.",
                where=self.store.address(self._folder(version, channel)),
                fix="Restore the missing record from a backup of the bucket.",
            )
        return answers

    def latest(self, version: str, channel: str) -> Answer | None:
        """The answer that counts, None if nobody answered yet."""
        answers = self.about(version, channel)
        return answers[-1] if answers else None

    def subjects(self) -> list[tuple[str, str]]:
        """Every (version, channel) that somebody answered about."""
        keys = (info.key.removeprefix(f"{self.prefix}/") for info in self.store.list(f"{self.prefix}/"))
        return list(dict.fromkeys((key.split("/")[0], key.split("/")[1]) for key in keys if "/" in key))

    def all(self) -> list[Answer]:
        """Every answer about every candidate. Raises as `about`."""
        return [answer for version, channel in self.subjects() for answer in self.about(version, channel)]

    def record(
        self,
        word: Word,
        version: str,
        channel: str,
        generation: int,
        decision: tuple[str, str] | None,
        actor: str,
        why: str,
    ) -> Answer:
        """Write the next answer about a version for a channel.

        Args:
            decision: id and SHA-256 of the gates' decision that it is about.

        Raises:
            StaleDecision: somebody else answered at the same moment.
            NotThisIdentity: the store lets others alone answer.
            TwinflowError: actor or reason is empty.
        """
        for name, text in (("actor", actor), ("reason", why)):
            if not text.strip():
                raise TwinflowError(
                    f"The {name} is empty.", where=f"{word} {version[:12]}", fix=f'Say it: --{name} "..."'
                )
        with duty(f"{word} candidates", "promoter"):
            require_conditional_writes(self.store)
        now = datetime.now(UTC)
        identity, sha256 = decision or (None, None)
        answer = Answer(
            number=len(self.about(version, channel)) + 1,
            answer=word,
            candidate=version,
            channel=channel,
            generation=generation,
            decision=identity,
            decision_sha256=sha256,
            actor=actor,
            why=why,
            at=now,
            expires=now + VALID_FOR if word == "approve" else None,
            nonce=uuid4().hex,
        )
        key = f"{self._folder(version, channel)}{answer.number:0{NUMBER_DIGITS}d}.json"
        with duty(f"{word} candidates", "promoter"):
            created = self.store.put(key, canonical_json(answer.model_dump(mode="json")), if_absent=True)
        if not created:
            raise StaleDecision(
                "Somebody else answered about this candidate at the same moment.",
                where=self.store.address(key),
                fix="Answer again if you still see it so; the last answer counts.",
            )
        return answer

    def _folder(self, version: str, channel: str) -> str:
        require_version(version)
        require_name("channel", channel)
        return f"{self.prefix}/{version}/{channel}/"

    def _read(self, key: str) -> Answer:
        try:
            return Answer.model_validate_json(self.store.get(key))
        except ValidationError:
            raise StoredObjectDamaged(
                "A person's answer is damaged.",
                where=self.store.address(key),
                fix="Restore this object from a backup of the bucket.",
            ) from None
