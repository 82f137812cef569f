"""What the gates decided about a candidate, as an immutable record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.manifest import Sha256

SUBJECT_DIGITS = 16


class Decision(BaseModel):
    """The part of a decision that promotion depends on; rules, numbers and intervals lie beside it.

    `candidate` is the version decided about (None where nothing was published), `channel` and `generation`
    the channel's state that it was compared with (0: no history yet), `outcome` what was decided.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    candidate: Sha256 | None
    channel: str
    generation: Annotated[int, Field(ge=0)]
    outcome: Literal["promote", "reject", "needs-approval"]
    mode: Literal["enforce", "dry-run"] = "enforce"
    expires: AwareDatetime | None = None

    def is_open(self, now: datetime) -> bool:
        """Whether this may still lead to a promotion at this time."""
        return self.outcome != "reject" and (self.expires is None or now < self.expires)


def read_decision(document: dict[str, Any], where: str) -> Decision:
    """Check a decision document. Raises `TwinflowError` that names the key at fault."""
    try:
        return Decision.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise TwinflowError(
            f"A decision's `{key}` is wrong: {fault['msg']}.", where=where, fix="Judge the candidate again."
        ) from None


def new_decision_id(candidate: str | None) -> str:
    """A name for a decision: YYYYMMDD-HHMMSS-<12 hex digits: microseconds, chance>-<whom it is about>.

    It sorts by time, and a listing of names tells which decisions a version's promotion has to read.
    """
    now = datetime.now(UTC)
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond:05x}{uuid4().hex[:7]}-{_subject(candidate)}"


def may_be_about(identity: str, candidate: str) -> bool:
    """Whether a decision of this name can be about a version; only its record says that it is.

    The oldest records have names that end after the random digits and tell nothing.
    """
    parts = identity.split("-")
    return len(parts) <= 3 or parts[-1] == _subject(candidate)


def _subject(candidate: str | None) -> str:
    return candidate[:SUBJECT_DIGITS] if candidate else "unpublished"
