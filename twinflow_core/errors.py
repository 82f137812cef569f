"""The one error type that a user sees, and the exit code that goes with it."""

from __future__ import annotations

import traceback
from contextlib import suppress
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the `twinflow` command tells the shell."""

    DONE = 0
    REJECTED = 1
    WRONG_INPUT = 2
    INFRASTRUCTURE = 3


class TwinflowError(Exception):
    """Something a user can put right, said as what is wrong, where it is, and what to do.

    Args:
        what: one sentence that says what is wrong.
        where: the file, key, row, address or command it concerns; empty if there is none.
        fix: what the user should do about it.
        code: the exit code, `WRONG_INPUT` unless the fault lies in infrastructure.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        fix: str = "",
        code: ExitCode = ExitCode.WRONG_INPUT,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        where = f"\n  where: {self.where}" if self.where else ""
        fix = f"\n  to do: {self.fix}" if self.fix else ""
        return f"{self.what}{where}{fix}"

    def as_dict(self) -> dict[str, str | int]:
        """The same for programs: what, where, fix and the exit code."""
        return {"what": self.what, "where": self.where, "fix": self.fix, "code": int(self.code)}


class InfrastructureError(TwinflowError):
    """A service, a network or a machine failed; the input was right. Exit code 3."""

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix, code=ExitCode.INFRASTRUCTURE)


def unexpected(error: Exception, log: Path) -> InfrastructureError:
    """What a user is told of an exception that nobody foresaw: one message, its traceback in the file `log`."""
    # Where nothing can be written, the message alone must do.
    with suppress(OSError):
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return InfrastructureError(
        f"Something unexpected happened: {type(error).__name__}: {error}",
        where=str(log),
        fix="The log tells where; if it is no fault of the set-up, report it.",
    )
