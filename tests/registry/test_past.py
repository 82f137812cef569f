from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.past import read_period, serving_between, spans

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _entries(*told: tuple[str, float]) -> list[Entry]:
    """Entries from (version letter, hours after START); the same letter again is a hold."""
    found: list[Entry] = []
    for letter, hours in told:
        before = found[-1].version if found else None
        found.append(
            Entry(
                generation=len(found) + 1,
                action="hold" if before == letter * 64 else "promote",
                version=letter * 64,
                previous=before,
                held=False,
                decision=None,
                actor="ada",
                reason="because",
                at=START + timedelta(hours=hours),
                nonce="n",
            )
        )
    return found


def test_a_day_shows_all_that_served_during_it() -> None:
    entries = _entries(("a", 12), ("b", 30), ("b", 31), ("c", 60))

    def on(day: str) -> list[str]:
        return [span.version[0] for span in serving_between(entries, *read_period(day, NOW))]

    assert on("2025-12-31") == []
    assert on("2026-01-01") == ["a"]
    assert on("2026-01-02") == ["a", "b"]
    assert on("2026-01-03") == ["b", "c"]
    assert on("2026-05-01") == ["c"]
    assert on("2026-01-02T06:00") == ["b"]
    assert on("2026-01-02T06:59+01:00") == ["a"]
    assert spans(entries)[-1].until is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=8), st.floats(0, 100))
def test_at_any_moment_at_most_one_version_serves_even_if_clocks_go_back(
    told: list[tuple[str, float]], hours: float
) -> None:
    moment = START + timedelta(hours=hours)
    entries = _entries(*told)
    served = serving_between(entries, moment, moment + timedelta(microseconds=1))
    assert len([span for span in served if span.until != span.since]) <= 1
    assert [span.since for span in spans(entries)] == sorted(span.since for span in spans(entries))
    if entries:
        assert spans(entries)[-1].version == entries[-1].version


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-02-30", "", "2026-07-01"])
def test_what_is_no_day_of_the_past(text: str) -> None:
    with pytest.raises(TwinflowError, match=r"no date|not come yet"):
        read_period(text, NOW)
