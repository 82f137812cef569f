"""Why a row of the source cannot be used: one reason a row, from one closed list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """What people read in `rejected.parquet`, in `summary.json` and in error messages."""

    MISSING_FILE = "missing file"
    UNSUPPORTED_FORMAT = "unsupported format"
    DAMAGED = "damaged"
    TOO_SMALL = "too small"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_MANY_BYTES = "too many bytes"
    UNSAFE_MEMBER = "unsafe member"
    NO_CAPTION = "no caption"
    UNREADABLE_CAPTION = "unreadable caption"
    EXACT_DUPLICATE = "exact duplicate"
    NEAR_DUPLICATE = "near duplicate"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row's reason, and the detail that lets a user see why: a size, a limit, the other file's name."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else str(self.reason)
