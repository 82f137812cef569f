"""What a channel served at a time, told from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import Entry


@dataclass(frozen=True)
class Span:
    """A time for which one version served: from `since` on, up to `until` (None: it serves still).

    `entry` is the one that made it serve.
    """

    version: str
    since: datetime
    until: datetime | None
    entry: Entry


def spans(entries: Sequence[Entry]) -> list[Span]:
    """The versions that served one after the other.

    The log's order decides: an entry whose clock was behind counts from the entry before it.
    """
    found: list[Span] = []
    latest: datetime | None = None
    for entry in entries:
        at = max(entry.at, latest) if latest else entry.at
        latest = at
        if entry.version is None or (found and found[-1].version == entry.version):
            continue
        if found:
            found[-1] = Span(found[-1].version, found[-1].since, at, found[-1].entry)
        found.append(Span(entry.version, at, None, entry))
    return found


def serving_between(entries: Sequence[Entry], start: datetime, end: datetime) -> list[Span]:
    """What served at any moment from `start` up to, not including, `end`."""
    return [
        span for span in spans(entries) if span.since < end and (span.until is None or span.until > start)
    ]


def read_period(text: str, now: datetime) -> tuple[datetime, datetime]:
    """A day or a moment as people write it, as (start, end); without an offset it is in UTC.

    Raises:
        TwinflowError: it is neither, or lies in the future.
    """
    try:
        if len(text) == len("2026-01-31"):
            start = datetime.combine(date.fromisoformat(text), time(), UTC)
            length = timedelta(days=1)
        else:
            start = datetime.fromisoformat(text)
            length = timedelta(microseconds=1)
    except ValueError:
        raise TwinflowError(
            f"`{text}` is no date.",
            where="DATE",
            fix="Write 2026-01-31 for a day, or 2026-01-31T15:00 for a moment (UTC, or with its offset).",
        ) from None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    if start > now:
        raise TwinflowError(f"{text} has not come yet.", where="DATE", fix="Give a day of the past.")
    return start, start + length
