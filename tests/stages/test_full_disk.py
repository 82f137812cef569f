"""Stages on a disk that takes no more: one message, nothing half made, and afterwards they can be done.

The limit is the operating system's own on the size of a file, which needs no rights: a write beyond it fails in
the middle, as on a full disk. `make soak` fills a real file system where it may mount one.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import ExitCode, InfrastructureError, unexpected
from twinflow_core.home import HOME_VARIABLE
from twinflow_core.params import Params
from twinflow_core.stages.base import base
from twinflow_core.stages.encode import encode
from twinflow_core.stages.entry import ERROR_FILE_VARIABLE, run_stage
from twinflow_core.stages.export import export
from twinflow_core.stages.finetune import finetune
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw

LARGEST_FILE = 700


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow beyond 700 bytes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def content(folder: Path) -> dict[str, str]:
    """Every file of the stages' outputs, half-made ones too."""
    files = [path for top in ("data", "models") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def line(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages run one after the other."""
    folder = tmp_path_factory.mktemp("line")
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["base"]["folder"] = str(tiny_pipeline)
    document["data"]["source"] = str(REPOSITORY / "tests/tiny_shapes")
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize("stage", [raw, prepare, base, encode, finetune])
def test_a_full_disk_is_one_message_and_leaves_nothing(
    line: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: Callable[[Params, Path], None],
) -> None:
    monkeypatch.chdir(line)
    monkeypatch.setenv(HOME_VARIABLE, str(line / "state"))
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(line / "error.json"))
    before = content(line)
    with full_disk(), pytest.raises(SystemExit) as ended:
        run_stage(stage)
    assert ended.value.code == ExitCode.INFRASTRUCTURE
    assert "cannot be written" in capsys.readouterr().err
    told = json.loads((line / "error.json").read_text())
    assert "cannot be written" in told["what"]
    assert "space" in told["fix"]
    assert content(line) == before
    assert not list(line.rglob("*.partial"))
    run_stage(stage)


@pytest.mark.slow
def test_a_full_disk_stops_an_export_and_leaves_nothing(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text((REPOSITORY / "tests/params.tiny.yaml").read_text())
    shutil.copytree(tiny_pipeline, tmp_path / "models/candidate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "state"))
    with full_disk(), pytest.raises(SystemExit) as ended:
        run_stage(export)
    assert ended.value.code == ExitCode.INFRASTRUCTURE
    assert "cannot be written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "state") == [
        "models",
        "params.yaml",
    ]


def test_what_nobody_foresaw_is_told_even_where_no_log_can_be_written() -> None:
    told = unexpected(ValueError("odd"), Path("/dev/full"))
    assert isinstance(told, InfrastructureError)
    assert "odd" in told.what
