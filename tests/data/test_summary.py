"""Counting without keeping: different texts, and rejected rows that are written as they come."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.summary import DistinctTexts, Summary


def test_different_texts_are_counted_once_each() -> None:
    texts = DistinctTexts()
    for number in range(200_000):
        texts.add(f"a caption of kind {number % 70_001}")
    assert len(texts) == 70_001


def test_many_rejected_rows_are_written_and_few_kept(tmp_path: Path) -> None:
    count = 150_000
    with Summary(tmp_path) as summary:
        for number in range(count):
            summary.reject(number, f"{number}.png", Rejection(Reason.DAMAGED, "x"))
            assert len(summary._waiting) < 70_000
    assert summary.rejected == count
    assert pq.read_table(tmp_path / "rejected.parquet")["row"].to_pylist() == list(range(count))
