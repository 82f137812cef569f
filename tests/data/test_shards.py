"""Rows come back as they went in, in order; the same rows make the same bytes; memory stays flat."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.data.shards import Row, ShardWriter, count_rows, read_rows
from twinflow_core.errors import TwinflowError


def _row(number: int, size: int = 50) -> Row:
    return Row(f"{number}.png", bytes([number % 256]) * size, f"no {number}", number, 2, f"{number:064x}", "")


def _write(folder: Path, rows: list[Row], rows_per_shard: int) -> list[Path]:
    folder.mkdir()
    with ShardWriter(folder, "train", rows_per_shard) as writer:
        for row in rows:
            writer.write(row)
    assert writer.count == len(rows)
    return sorted(folder.iterdir())


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (9, 1), (10, 1), (11, 2), (200, 20)])
def test_rows_come_back_in_order_from_full_shards(tmp_path: Path, count: int, shards: int) -> None:
    rows = [_row(number) for number in range(count)]
    paths = _write(tmp_path / "out", rows, 10)
    assert [path.name for path in paths] == [f"train-{number:05d}.parquet" for number in range(shards)]
    assert list(read_rows(tmp_path / "out", "train")) == rows
    assert count_rows(tmp_path / "out", "train") == count


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.builds(Row, TEXT, st.binary(), TEXT, st.integers(1, 2**31 - 1), st.integers(1, 9), TEXT, TEXT)


@given(st.lists(ROWS, min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_any_row_survives(tmp_path_factory, rows: list[Row], rows_per_shard: int) -> None:
    folder = tmp_path_factory.mktemp("shards") / "out"
    _write(folder, rows, rows_per_shard)
    assert list(read_rows(folder, "train")) == rows


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    rows = [_row(number) for number in range(25)]
    first, second = (_write(tmp_path / name, rows, 10) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_large_images_are_written_and_read_in_small_groups(tmp_path: Path) -> None:
    (path,) = _write(tmp_path / "out", [_row(number, size=2**20) for number in range(64)], 2048)
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    assert len(sizes) == 4
    assert max(sizes) < 17 * 2**20
    allocated = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - allocated for _ in read_rows(tmp_path / "out", "train"))
    assert peak < 36 * 2**20


def test_a_missing_split_and_a_damaged_shard_are_named(tmp_path: Path) -> None:
    (path,) = _write(tmp_path / "out", [_row(1)], 10)
    with pytest.raises(TwinflowError, match="no validation rows"):
        list(read_rows(tmp_path / "out", "validation"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TwinflowError, match="damaged") as caught:
        count_rows(tmp_path / "out", "train")
    assert path.name in caught.value.where
    pq.write_table(pa.table({"image": [b""]}), path)
    with pytest.raises(TwinflowError, match="damaged"):
        list(read_rows(tmp_path / "out", "train"))
