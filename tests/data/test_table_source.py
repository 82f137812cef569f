"""Rows of parquet and Arrow come out as they went in; a column that will not do is named."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.packed_sources import table, write_arrow, write_parquet
from tests.source_folders import caption_of, encoded, picture
from twinflow_core.data.rejections import Reason
from twinflow_core.data.samples import Columns, Sample
from twinflow_core.data.table_source import read_table_file
from twinflow_core.errors import TwinflowError

MOST_PIXELS = 100_000


def _read(path: Path, columns: Columns = Columns()) -> list[Sample]:  # noqa: B008
    return list(read_table_file(path, path.name, columns, MOST_PIXELS))


def _write(path: Path, columns: dict[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_rows_come_back_in_order(tmp_path: Path, write) -> None:
    folder = write(tmp_path / "set", 30)
    paths = sorted(path for path in folder.rglob("*-of-*"))
    samples = [sample for path in paths for sample in _read(path)]
    assert [sample.image for sample in samples] == [encoded(picture(n)) for n in range(30)]
    assert [sample.caption for sample in samples] == [caption_of(n) for n in range(30)]
    assert [json.loads(sample.metadata) for sample in samples] == [{"number": n} for n in range(30)]
    assert [sample.file_name for sample in samples] == [
        f"{path.name}#{n}" for path in paths for n in range(15)
    ]


def test_the_file_format_of_arrow_is_read_too(tmp_path: Path) -> None:
    whole = table(5)
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, whole.schema) as writer:
        writer.write_table(whole)
    assert [sample.caption for sample in _read(tmp_path / "a.arrow")] == [caption_of(n) for n in range(5)]


def test_plain_bytes_and_other_names(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"picture": [b"p"], "title": ["t"], "text": ["other"]})
    with pytest.raises(TwinflowError, match="No column holds the image") as caught:
        _read(path)
    assert "picture, title, text" in caught.value.where
    (sample,) = _read(path, Columns("picture", "title"))
    assert (sample.image, sample.caption, sample.metadata) == (b"p", "t", '{"text": "other"}')


def test_bad_rows_are_rejected_one_by_one(tmp_path: Path) -> None:
    images = [
        {"bytes": b"x", "path": None},
        {"bytes": None, "path": "/far/away.png"},
        None,
        {"bytes": bytes(8 * MOST_PIXELS + 2**20 + 1), "path": None},
        {"bytes": b"x", "path": None},
        {"bytes": b"x", "path": None},
    ]
    texts = ["good", "c", "c", "c", None, "  "]
    samples = _read(_write(tmp_path / "a.parquet", {"image": images, "text": texts}))
    assert [sample.rejection and sample.rejection.reason for sample in samples] == [
        None,
        Reason.MISSING_FILE,
        Reason.MISSING_FILE,
        Reason.TOO_MANY_BYTES,
        Reason.NO_CAPTION,
        Reason.NO_CAPTION,
    ]


def test_metadata_is_what_json_can_hold(tmp_path: Path) -> None:
    columns = {
        "image": [b"x"],
        "text": ["t"],
        "score": [float("nan")],
        "tags": [["a", "b"]],
        "include": [[{"class": "c", "n": 1}]],
        "embedding": [b"\x00"],
        "day": pa.array([0], pa.date32()),
        "none": pa.array([None], pa.int64()),
    }
    (sample,) = _read(_write(tmp_path / "a.parquet", columns))
    assert json.loads(sample.metadata) == {
        "score": None,
        "tags": ["a", "b"],
        "include": [{"class": "c", "n": 1}],
    }


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": ["a url"], "text": ["t"]}, "image column `image` holds string"),
        ({"image": [b"x"], "text": [["a", "b"]]}, "caption column `text` holds list"),
        ({"image": [b"x"]}, "No column holds the caption"),
    ],
)
def test_an_unfit_column_is_named(tmp_path: Path, columns: dict[str, object], says: str) -> None:
    with pytest.raises(TwinflowError, match=says) as caught:
        _read(_write(tmp_path / "a.parquet", columns))
    assert "_column in params.yaml" in caught.value.fix


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("kept", [0, 3, 200, -40])
def test_a_damaged_file_is_told(tmp_path: Path, name: str, kept: int) -> None:
    whole = table(5)
    if name == "a.parquet":
        pq.write_table(whole, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as file, pa.ipc.new_stream(file, whole.schema) as writer:
            writer.write_table(whole)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(TwinflowError, match="damaged"):
        _read(tmp_path / name)
