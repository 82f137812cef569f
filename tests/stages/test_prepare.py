"""Bad rows are rejected one by one with their reason, good ones come through, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.source_folders import (
    CAPTION_FORMS,
    CaptionForm,
    caption_of,
    decompression_bomb,
    encoded,
    picture,
    write_jsonl,
    write_source,
)
from twinflow_core.data.shards import Row, count_rows, read_rows
from twinflow_core.data.splits import SPLITS
from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params, load_params
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw

REPOSITORY = Path(__file__).parents[2]


def _params(**changes: Any) -> Params:
    params = load_params(REPOSITORY / "params.yaml")
    return params.model_copy(update={"data": params.data.model_copy(update=changes)})


def _rows(root: Path) -> dict[str, Row]:
    return {row.file_name: row for split in SPLITS for row in read_rows(root / "data/prepared", split)}


def _splits(root: Path) -> dict[str, str]:
    return {row.file_name: split for split in SPLITS for row in read_rows(root / "data/prepared", split)}


def _rejected(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "data/prepared/rejected.parquet").to_pylist()


def _summary(root: Path) -> dict[str, Any]:
    return json.loads((root / "data/prepared/summary.json").read_text())


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("form", CAPTION_FORMS)
def test_a_users_200_pngs_come_through_in_each_form_of_captions(tmp_path: Path, form: CaptionForm) -> None:
    source = write_source(tmp_path / "source", 200, form)
    raw(_params(source=str(source)), tmp_path)
    prepare(_params(source=str(source), rows_per_shard=64), tmp_path)
    rows = _rows(tmp_path)
    assert len(rows) == 200
    for index, name in enumerate(sorted(rows)):
        row = rows[name]
        assert row.caption == caption_of(index)
        assert row.image == (source / name).read_bytes()
        assert row.sha256 == hashlib.sha256(row.image).hexdigest()
        assert (row.width, row.height) == (48, 40)
    assert _rejected(tmp_path) == []
    assert _summary(tmp_path)["splits"] == {
        split: count_rows(tmp_path / "data/prepared", split) for split in SPLITS
    }
    names = {path.name for path in (tmp_path / "data/prepared").iterdir()}
    assert {"train-00000.parquet", "train-00001.parquet", "validation-00000.parquet", "summary.json"} < names


def _spoil(source: Path) -> dict[str, str]:
    """Add one row of every kind that is rejected, each after the good rows; their reasons."""
    jpeg = encoded(picture(900, (64, 64)), "JPEG")
    spoilt = {
        "y/bomb.png": (decompression_bomb(15_000, 14_000, 14_000), "c", "too many pixels"),
        "y/cut.jpg": (jpeg[: len(jpeg) // 2], "c", "damaged"),
        "y/cut.png": (encoded(picture(901))[:-13], "c", "damaged"),
        "y/empty.png": (b"", "c", "damaged"),
        "y/text.png": (b"this is no image", "c", "damaged"),
        "y/tiny.png": (encoded(picture(902, (15, 40))), "c", "too small"),
        "y/mute.png": (encoded(picture(903)), "   ", "no caption"),
        "y/number.png": (encoded(picture(904)), 7, "unreadable caption"),
        "y/unlisted.png": (encoded(picture(905)), None, "no caption"),
        "y/raw.heic": (encoded(picture(906)), "c", "unsupported format"),
        "y/copy.png": ((source / "pictures/0003.png").read_bytes(), "another", "exact duplicate"),
        "y/resaved.webp": (encoded(picture(4), "WEBP", lossless=True), "another", "exact duplicate"),
        "y/gone.png": (None, "c", "missing file"),
        "z/photo.jpg": (encoded(picture(907, (200, 160)), "JPEG", quality=70), "p", "near duplicate"),
    }
    rows = [{"file_name": "photo.png", "text": "p"}]
    (source / "y").mkdir()
    (source / "z").mkdir()
    (source / "photo.png").write_bytes(encoded(picture(907, (200, 160))))
    for name, (content, caption, _) in spoilt.items():
        if content is not None:
            (source / name).write_bytes(content)
        if caption is not None:
            rows.append({"file_name": name, "text": caption})
    with (source / "metadata.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return {name: reason for name, (_, _, reason) in spoilt.items()}


def test_every_kind_of_bad_row_is_rejected_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", 80)
    expected = _spoil(source)
    raw(_params(source=str(source)), tmp_path)
    prepare(_params(), tmp_path)
    rejected = _rejected(tmp_path)
    assert {entry["file_name"]: entry["reason"] for entry in rejected} == expected
    assert [entry["row"] for entry in rejected] == list(range(81, 81 + len(expected)))
    assert len(_rows(tmp_path)) == 81
    summary = _summary(tmp_path)
    assert {reason: count for reason, count in summary["rejected"].items() if count} == Counter(
        expected.values()
    )
    assert (summary["rows"], summary["usable"]) == (81 + len(expected), 81)


def test_too_many_rejected_rows_stop_it_and_are_shown(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", 20)
    raw(_params(source=str(source)), tmp_path)
    prepare(_params(validation=0.4), tmp_path)
    before = _hashes(tmp_path / "data/prepared")
    _spoil(source)
    raw(_params(source=str(source)), tmp_path)
    with pytest.raises(TwinflowError) as caught:
        prepare(_params(source=str(source), validation=0.4), tmp_path)
    message = str(caught.value)
    assert "14 of 35 rows were rejected" in message
    assert "max_rejected allows 20%" in message
    assert "damaged: 4" in message
    assert "row 22  y/copy.png: exact duplicate (of pictures/0003.png)" in message
    assert "and 4 more" in message
    assert str(source) in message
    assert _hashes(tmp_path / "data/prepared") == before
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"raw", "prepared"}
    prepare(_params(validation=0.4, max_rejected=0.4), tmp_path)


def test_no_usable_row_is_an_error_at_any_limit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data/raw", [{"file_name": "a.png", "text": "x"}])
    with pytest.raises(TwinflowError, match="1 of 1 rows were rejected; none is left"):
        prepare(_params(max_rejected=1.0), tmp_path)
    assert not (tmp_path / "data/prepared").exists()


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    write_source(tmp_path / "data/raw", 3)
    with pytest.raises(TwinflowError, match="validation split"):
        prepare(_params(validation=0.001), tmp_path)


def test_missing_raw_data_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError) as caught:
        prepare(_params(), tmp_path)
    assert "`raw`" in caught.value.fix


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    (shapes / "shapes.yaml").write_text("count: 300\nseed: 0\n")
    hashes = []
    for name in ("one", "two"):
        root = tmp_path / name
        raw(_params(source=str(shapes)), root)
        prepare(_params(source=str(shapes), rows_per_shard=100), root)
        hashes.append(_hashes(root / "data/prepared"))
    assert hashes[0] == hashes[1]
    metadata = json.loads(_rows(tmp_path / "one")["images/000000.png"].metadata)
    assert {"tag", "include", "exclude", "slice"} <= set(metadata)


def test_an_added_image_moves_no_other(tmp_path: Path) -> None:
    write_source(tmp_path / "data/raw", 60, "txt")
    prepare(_params(validation=0.3), tmp_path)
    before = _splits(tmp_path)
    assert set(before.values()) == set(SPLITS)
    (tmp_path / "data/raw/a-first.png").write_bytes(encoded(picture(700)))
    (tmp_path / "data/raw/a-first.txt").write_text("new")
    prepare(_params(validation=0.3), tmp_path)
    after = _splits(tmp_path)
    assert after.pop("a-first.png")
    assert after == before


def test_second_captions_and_near_duplicates_share_their_images_split(tmp_path: Path) -> None:
    source = tmp_path / "data/raw"
    source.mkdir(parents=True)
    rows = []
    for index in range(30):
        image = picture(index, (120, 100))
        (source / f"{index:02d}.png").write_bytes(encoded(image))
        smaller = image.resize((108, 90), Image.Resampling.LANCZOS)
        (source / f"{index:02d}-again.jpg").write_bytes(encoded(smaller, "JPEG", quality=85))
        rows += [
            {"file_name": f"{index:02d}.png", "text": "one"},
            {"file_name": f"{index:02d}.png", "text": "another"},
            {"file_name": f"{index:02d}-again.jpg", "text": "third"},
        ]
    write_jsonl(source, rows)
    prepare(_params(validation=0.4), tmp_path)
    splits = _splits(tmp_path)
    assert set(splits.values()) == set(SPLITS)
    assert sum(count_rows(tmp_path / "data/prepared", split) for split in SPLITS) == 90
    for index in range(30):
        assert splits[f"{index:02d}.png"] == splits[f"{index:02d}-again.jpg"]
