"""data/raw is one kind of folder whatever the source, the same bytes each time, and never half."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.source_folders import CAPTION_FORMS, CaptionForm, encoded, picture, write_source
from twinflow_core.data.decode import decode_rgb
from twinflow_core.data.shapes_render import render_dataset
from twinflow_core.data.sources import find_pairs
from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params, load_params
from twinflow_core.stages.raw import load_shapes_source, raw

REPOSITORY = Path(__file__).parents[2]


def _params(source: Path | str) -> Params:
    params = load_params(REPOSITORY / "params.yaml")
    return params.model_copy(update={"data": params.data.model_copy(update={"source": str(source)})})


def _hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _shapes(folder: Path, text: str = "count: 12\nseed: 5\n") -> Path:
    folder.mkdir()
    (folder / "shapes.yaml").write_text(text)
    return folder


def test_shapes_are_rendered_as_a_folder_like_a_users(tmp_path: Path) -> None:
    _shapes(tmp_path / "shapes")
    raw(_params("shapes"), tmp_path)
    pairs = list(find_pairs(tmp_path / "data/raw"))
    for pair, (pixels, caption, record) in zip(pairs, render_dataset(12, 5), strict=True):
        assert pair.caption == caption
        assert json.loads(pair.metadata) == record
        assert np.array_equal(decode_rgb((tmp_path / "data/raw" / pair.file_name).read_bytes()), pixels)


@pytest.mark.parametrize("form", CAPTION_FORMS)
def test_a_users_folder_is_copied_without_strangers(tmp_path: Path, form: CaptionForm) -> None:
    source = write_source(tmp_path / "source", 5, form)
    expected = _hashes(source)
    for name in ("notes.md", ".DS_Store", "pictures/clip.mp4", "pictures/orphan.txt"):
        (source / name).write_text("x")
    raw(_params("source"), tmp_path)
    assert _hashes(tmp_path / "data/raw") == expected


def test_twice_gives_the_same_bytes_and_a_removed_image_leaves(tmp_path: Path) -> None:
    _shapes(tmp_path / "shapes")
    raw(_params("shapes"), tmp_path)
    first = _hashes(tmp_path / "data/raw")
    source = write_source(tmp_path / "source", 5, "txt")
    raw(_params(source), tmp_path)
    (source / "pictures/0002.png").unlink()
    raw(_params(source), tmp_path)
    assert "pictures/0002.png" not in _hashes(tmp_path / "data/raw")
    raw(_params("shapes"), tmp_path)
    assert _hashes(tmp_path / "data/raw") == first


def test_adding_shapes_changes_no_earlier_picture(tmp_path: Path) -> None:
    for count in (12, 13):
        _shapes(tmp_path / f"{count}", f"count: {count}\nseed: 5\n")
    raw(_params("12"), tmp_path)
    before = _hashes(tmp_path / "data/raw/images")
    raw(_params("13"), tmp_path)
    after = _hashes(tmp_path / "data/raw/images")
    assert len(after) == 13
    assert before.items() <= after.items()


def test_the_bundled_source_is_valid() -> None:
    source = load_shapes_source(REPOSITORY / "assets/shapes/shapes.yaml")
    assert (source.count, source.seed) == (6000, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("count: 12", "seed"),
        ("count: 0\nseed: 0", "count"),
        ("count: -5\nseed: 0", "count"),
        ("count: many\nseed: 0", "count"),
        ("cuont: 5\nseed: 0", "count"),
        ("", "dictionary"),
        ("count: [", "line"),
    ],
)
def test_a_wrong_shapes_file_is_explained(tmp_path: Path, text: str, says: str) -> None:
    _shapes(tmp_path / "shapes", text)
    with pytest.raises(TwinflowError) as caught:
        raw(_params("shapes"), tmp_path)
    assert says in caught.value.where
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("source", ["data/raw", ".", "data/raw/pictures", "data"])
def test_a_source_that_overlaps_the_target_is_refused(tmp_path: Path, source: str) -> None:
    write_source(tmp_path / "data/raw", 2)
    before = _hashes(tmp_path)
    with pytest.raises(TwinflowError, match="lie in one another"):
        raw(_params(source), tmp_path)
    assert _hashes(tmp_path) == before


def test_a_fault_leaves_what_was_there(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", 3)
    raw(_params(source), tmp_path)
    before = _hashes(tmp_path / "data")
    with (source / "metadata.jsonl").open("a") as file:
        file.write("{oops\n")
    with pytest.raises(TwinflowError) as caught:
        raw(_params(source), tmp_path)
    assert caught.value.where == f"{source / 'metadata.jsonl'}, line 4"
    assert _hashes(tmp_path / "data") == before


def test_as_a_command_a_missing_folder_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    text = (REPOSITORY / "params.yaml").read_text().replace("source: assets/shapes", "source: no/such/folder")
    (tmp_path / "params.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "twinflow_core.stages.raw"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "The data folder is missing" in done.stderr
    assert "no/such/folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_damaged_images_are_copied_for_prepare_to_judge(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", 2)
    (source / "pictures/0000.png").write_bytes(encoded(picture(0))[:50])
    raw(_params(source), tmp_path)
    assert (tmp_path / "data/raw/pictures/0000.png").stat().st_size == 50
