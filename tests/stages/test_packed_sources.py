"""Packed sources through the real stages: packed in data/raw too, and the same rows as loose images give."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.packed_sources import PACKERS, Packer, members, write_tar, write_tars
from tests.pipeline_clone import REPOSITORY
from tests.source_folders import encoded, picture, write_source
from twinflow_core.data.shards import Row, read_rows
from twinflow_core.data.splits import SPLITS
from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params, load_params
from twinflow_core.registry.s3 import S3Connection
from twinflow_core.registry.store import ObjectStore
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw

COUNT = 60


def _params(source: Path | str, workers: int = 1, **changes: Any) -> Params:
    params = load_params(REPOSITORY / "params.yaml")
    data = params.data.model_copy(update={"source": str(source), "validation": 0.3, **changes})
    return params.model_copy(update={"data": data, "run": params.run.model_copy(update={"workers": workers})})


def _rows(root: Path) -> list[tuple[str, str, bytes, str, int, int]]:
    """What must not depend on how the images came: split, caption, bytes, sizes."""

    def told(split: str, row: Row) -> tuple[str, str, bytes, str, int, int]:
        return (split, row.caption, row.image, row.sha256, row.width, row.height)

    return [told(split, row) for split in SPLITS for row in read_rows(root / "data/prepared", split)]


def _hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loose")
    params = _params(write_source(root / "source", COUNT))
    raw(params, root)
    prepare(params, root)
    return root


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_packed_files_stay_packed_and_give_the_rows_of_loose_images(
    tmp_path: Path, loose: Path, packer: Packer
) -> None:
    params = _params(packer(tmp_path / "source", COUNT))
    raw(params, tmp_path)
    assert len(_hashes(tmp_path / "data/raw")) in (2, 3)
    assert _hashes(tmp_path / "data/raw").items() <= _hashes(tmp_path / "source").items()
    prepare(params, tmp_path)
    assert _rows(tmp_path) == _rows(loose)


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_the_same_set_in_a_bucket_gives_the_same_raw_data(
    tmp_path: Path,
    packer: Packer,
    object_store: ObjectStore,
    s3_connection: S3Connection,
    fresh_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_connection.environment().items():
        monkeypatch.setenv(name, value)
    source = packer(tmp_path / "source", COUNT)
    for path in source.rglob("*"):
        if path.is_file():
            object_store.put(f"{fresh_prefix}{path.relative_to(source).as_posix()}", path.read_bytes())
    raw(_params(source), tmp_path / "here")
    raw(_params(f"s3://{object_store.bucket}/{fresh_prefix}"), tmp_path / "there")
    assert _hashes(tmp_path / "there/data/raw") == _hashes(tmp_path / "here/data/raw")


def test_loose_images_in_a_bucket_are_fetched_without_strangers(
    tmp_path: Path,
    object_store: ObjectStore,
    s3_connection: S3Connection,
    fresh_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"s3://{object_store.bucket}/{fresh_prefix}set"
    with pytest.raises(TwinflowError, match="no S3 server is named"):
        raw(_params(address), tmp_path)
    for name, value in s3_connection.environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TwinflowError, match="no images and no packed files"):
        raw(_params(address), tmp_path)
    source = write_source(tmp_path / "source", 4, "txt")
    for path in source.rglob("*.*"):
        object_store.put(f"{fresh_prefix}set/{path.relative_to(source).as_posix()}", path.read_bytes())
    object_store.put(f"{fresh_prefix}set/notes.md", b"x")
    object_store.put(f"{fresh_prefix}set-of-another/1.png", b"x")
    raw(_params(address), tmp_path)
    assert _hashes(tmp_path / "data/raw") == _hashes(source)
    with pytest.raises(TwinflowError, match="does not exist"):
        raw(_params("s3://no-such-bucket-here/x"), tmp_path)
    assert _hashes(tmp_path / "data/raw") == _hashes(source)


def test_hostile_members_are_rejected_by_row_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    hostile = [("../../escaped.png", encoded(picture(500))), ("../../escaped.txt", b"c")]
    write_tar(tmp_path / "source/a.tar", [*members(COUNT), *hostile])
    raw(_params(tmp_path / "source"), tmp_path)
    prepare(_params(tmp_path / "source"), tmp_path)
    rejected = pq.read_table(tmp_path / "data/prepared/rejected.parquet").to_pylist()
    assert [(row["row"], row["file_name"], row["reason"]) for row in rejected] == [
        (COUNT, "a.tar/../../escaped.png", "unsafe member")
    ]
    assert not list(tmp_path.rglob("escaped*"))
    assert not list(tmp_path.parent.glob("escaped*"))


def test_one_file_more_changes_one_file_of_data_raw_and_a_pattern_chooses(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "source", 40)
    raw(_params(source), tmp_path)
    before = _hashes(tmp_path / "data/raw")
    write_tar(source / "shard-002.tar", [("x.png", encoded(picture(99))), ("x.txt", b"new")])
    raw(_params(source), tmp_path)
    assert _hashes(tmp_path / "data/raw").keys() - before.keys() == {"shard-002.tar"}
    raw(_params(source, files="shard-{000..001}.tar"), tmp_path)
    assert _hashes(tmp_path / "data/raw") == before


def test_a_damaged_file_leaves_what_was_prepared(tmp_path: Path, loose: Path) -> None:
    source = write_tars(tmp_path / "source", COUNT)
    raw(_params(source), tmp_path)
    prepare(_params(source), tmp_path)
    before = _hashes(tmp_path / "data/prepared")
    path = tmp_path / "data/raw/shard-001.tar"
    path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(TwinflowError, match="tar file is damaged") as caught:
        prepare(_params(source), tmp_path)
    assert "shard-001.tar" in caught.value.where
    assert _hashes(tmp_path / "data/prepared") == before


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "source", COUNT)
    found = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        raw(_params(source), root)
        prepare(_params(source, workers, rows_per_shard=25), root)
        found.append(_hashes(root / "data/prepared"))
    assert found[0] == found[1]
    assert len([name for name in found[0] if name.startswith("train")]) > 1
