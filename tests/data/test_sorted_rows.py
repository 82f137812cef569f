"""Rows come back sorted as `sorted` sorts, those of one name in the order they came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.data.sorted_rows import SortedRows

# Hardly a name twice, and names of few letters often.
NAMES = st.text() | st.text("a/.-\0é😀", max_size=3)


@given(st.lists(st.tuples(NAMES, st.text())))
def test_any_rows_are_sorted_by_name_and_then_by_their_order(rows: list[tuple[str, str]]) -> None:
    kept = SortedRows()
    for name, text in rows:
        kept.add(name, text)
    assert list(kept) == sorted(rows, key=lambda row: row[0])
    assert len(kept) == len(rows)
    assert all(name in kept for name, _ in rows)
    assert ("not there" in kept) == ("not there" in {name for name, _ in rows})
