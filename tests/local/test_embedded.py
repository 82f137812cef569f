from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import psutil
import pytest

from twinflow_core.errors import InfrastructureError
from twinflow_core.local.embedded import Recipe, ensure_running, ensure_stopped, read_record, write_private


def _recipe(folder: Path, code: str) -> Recipe:
    return Recipe(
        name="test service",
        folder=folder,
        ports=1,
        command=lambda _: [sys.executable, "-c", code],
        is_healthy=lambda _: (folder / "healthy").exists(),
        start_seconds=20,
        stop_seconds=10,
        environment=dict(os.environ),
    )


def test_a_service_that_dies_at_start_shows_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="does not start: no licence today") as caught:
        ensure_running(_recipe(tmp_path, "raise SystemExit('no licence today')"), print)
    assert caught.value.where == str(tmp_path / "server.log")


def test_it_starts_once_and_again_after_it_died(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = _recipe(tmp_path, "open('healthy', 'w'); import time; time.sleep(60)")
    first = ensure_running(recipe, print)
    assert ensure_running(recipe, print) == first
    psutil.Process(first.daemon.pid).kill()
    psutil.wait_procs([psutil.Process(first.daemon.pid)], timeout=10)
    second = ensure_running(recipe, print)
    assert second.daemon.pid != first.daemon.pid
    assert second.ports == first.ports
    assert ensure_stopped(recipe, print)
    assert not ensure_stopped(recipe, print)
    assert capsys.readouterr().out.count("Starting the test service") == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"daemon": {"pid": 1}}', '{"daemon": {}, "ports": [1]}'])
def test_a_torn_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "process.json").write_text(text)
    assert read_record(tmp_path) is None


def test_a_private_file_is_private(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "text")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
