"""What the gates decided about a candidate, as an immutable record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.manifest import Sha256


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


def new_decision_id() -> str:
    """A name for a decision that sorts by time: YYYYMMDD-HHMMSS-<8 hex digits>."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:8]}"
