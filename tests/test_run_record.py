from __future__ import annotations

from pathlib import Path

from twinflow_core.run_record import RunRecord, last_decided, next_number, save_record


def test_a_clock_that_is_set_back_changes_no_order(tmp_path: Path) -> None:
    # The later run has the earlier times, as after a clock was set back between them.
    for run_id, finished in (
        ("20260102-000000-aaaa", "2026-01-02T"),
        ("20260101-000000-bbbb", "2026-01-01T"),
    ):
        number = next_number(tmp_path)
        save_record(tmp_path, RunRecord(id=run_id, number=number, state="promoted", finished=finished))
    last = last_decided(tmp_path)
    assert last is not None
    assert last.id == "20260101-000000-bbbb"
    assert next_number(tmp_path) == 3


def test_records_from_before_there_were_numbers_go_by_their_times(tmp_path: Path) -> None:
    for run_id in ("20260102-000000-aaaa", "20260101-000000-bbbb"):
        save_record(tmp_path, RunRecord(id=run_id, state="promoted", finished=run_id[:8]))
    last = last_decided(tmp_path)
    assert last is not None
    assert last.id == "20260102-000000-aaaa"
