"""Encoding again costs what is new alone, and gives the bytes that encoding from nothing gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.encoding.prepared_folder import A_SHARD, HELD_OUT, Captions, write_prepared
from tests.pipeline_clone import REPOSITORY
from tests.source_folders import caption_of
from tests.tiny_pipeline import build_tiny_pipeline
from twinflow_core.encoding.cache import EncodeCache
from twinflow_core.params import Params, load_params
from twinflow_core.stages.encode import encode
from twinflow_core.training.encoded import EncodedData

ROWS, BATCH = 20, 4


def _root(folder: Path, numbers: list[int], caption: Captions = caption_of, a_shard: int = A_SHARD) -> Path:
    write_prepared(folder, numbers, caption, a_shard)
    build_tiny_pipeline(folder / "models/base")
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["encode"]["batch_size"] = BATCH
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return folder


def _params(root: Path) -> Params:
    return load_params(root / "params.yaml")


def _files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "data/encoded").iterdir()}


def _cold(folder: Path, numbers: list[int], caption: Captions = caption_of) -> dict[str, bytes]:
    root = _root(folder, numbers, caption)
    encode(_params(root), root)
    return _files(root)


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


NUMBERS = list(range(ROWS))


@pytest.fixture
def root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A root that was encoded once."""
    root = _root(tmp_path / "root", NUMBERS)
    encode(_params(root), root)
    # Every shard has the empty caption; the seven others are met in the first one.
    assert _said(capsys).startswith(
        f"{ROWS + HELD_OUT} of {ROWS + HELD_OUT} images and 8 captions were encoded"
    )
    return root


def test_there_is_a_shard_for_each_prepared_one(root: Path) -> None:
    assert {name for name in _files(root) if name.endswith(".safetensors")} == {
        "train-00000.safetensors",
        "train-00001.safetensors",
        "train-00002.safetensors",
        "validation-00000.safetensors",
    }
    assert len(EncodedData.load(root / "data/encoded", "train")) == ROWS


def test_nothing_new_encodes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(root)
    encode(_params(root), root)
    assert _said(capsys).startswith(f"0 of {ROWS + HELD_OUT} images and 0 captions")
    assert _files(root) == before


def test_a_changed_caption_encodes_one_caption(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(number: int) -> str:
        return "a blue square" if number == 5 else caption_of(number)

    write_prepared(root, NUMBERS, changed)
    encode(_params(root), root)
    assert _said(capsys).startswith(f"0 of {ROWS + HELD_OUT} images and 1 captions")
    assert _files(root) == _cold(tmp_path / "cold", NUMBERS, changed)


def test_an_image_more_in_front_encodes_one_image_though_every_shard_changes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [700, *NUMBERS]
    write_prepared(root, more)
    encode(_params(root), root)
    assert _said(capsys).startswith(f"1 of {ROWS + HELD_OUT + 1} images and 0 captions")
    assert _files(root) == _cold(tmp_path / "cold", more)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("vae", f"{ROWS + HELD_OUT} of 23 images and 0 captions"),
        ("text_encoder", "0 of 23 images and 8 captions"),
    ],
)
def test_other_weights_encode_what_they_make_alone(
    root: Path, capsys: pytest.CaptureFixture[str], part: str, says: str
) -> None:
    (path,) = (root / "models/base" / part).glob("*.safetensors")
    weights = load_file(path)
    save_file({name: value * 1.01 for name, value in weights.items()}, path, metadata={"format": "pt"})
    before = _files(root)
    encode(_params(root), root)
    assert _said(capsys).startswith(says)
    assert _files(root) != before


def test_a_damaged_shard_of_the_cache_is_encoded_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(root)
    damaged = sorted((root / ".twinflow/cache/encoded").glob("*.safetensors"))[0]
    damaged.unlink()
    damaged.write_bytes(b"no shard at all")
    encode(_params(root), root)
    assert not _said(capsys).startswith("0 of")
    assert _files(root) == before
    assert damaged.read_bytes() != b"no shard at all"


def test_the_cache_holds_the_last_encoding_alone_linked_to_its_output(root: Path) -> None:
    write_prepared(root, NUMBERS[:4])
    encode(_params(root), root)
    cached = list((root / ".twinflow/cache/encoded").iterdir())
    assert len(cached) == 2
    shards = list((root / "data/encoded").glob("*.safetensors"))
    assert {path.stat().st_ino for path in cached} == {path.stat().st_ino for path in shards}


def test_a_row_known_by_half_its_key_alone_is_not_taken(root: Path) -> None:
    cache = EncodeCache(root / ".twinflow/cache/encoded")
    keys = load_file(root / "data/encoded/train-00000.safetensors")["latent_keys"].numpy()
    assert all(cache.find("latent_keys", keys))
    keys[:, -1] ^= 1
    assert cache.find("latent_keys", keys) == [None] * len(keys)


@pytest.mark.slow
def test_a_killed_encoding_goes_on_from_its_finished_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = list(range(300))
    root = _root(tmp_path / "root", numbers, a_shard=4)
    cache = root / ".twinflow/cache/encoded"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "twinflow_core.stages.encode"],
        cwd=root,
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(cache.glob("[!.]*"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (root / "data/encoded").exists()
    finished = len(list(cache.glob("[!.]*.safetensors")))
    encode(_params(root), root)
    assert _said(capsys).startswith(f"{303 - 4 * finished} of 303 images")
    resumed = _files(root)
    for path in cache.iterdir():
        path.unlink()
    encode(_params(root), root)
    assert _files(root) == resumed


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(root: Path, tmp_path: Path) -> None:
    before = _files(root)
    for path in (root / ".twinflow/cache/encoded").iterdir():
        path.unlink()
    params = _params(root)
    two = params.model_copy(update={"run": params.run.model_copy(update={"encode_workers": 2})})
    encode(two, root)
    assert _files(root) == before
