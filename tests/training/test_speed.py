"""Rows a second, in all and since the last line of the log."""

import json
from pathlib import Path

import pytest
import torch

from twinflow_core.training.speed import FILE, Speed


def test_a_noted_rate_is_that_since_the_last_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr("twinflow_core.training.speed.time.perf_counter", lambda: now)
    speed = Speed(torch.device("cpu"))
    now += 2.0
    speed.add(8)
    speed.note(1)
    now += 1.0
    speed.add(8)
    speed.add(8)
    speed.note(3)
    speed.write(tmp_path)
    found = json.loads((tmp_path / FILE).read_text())
    assert found["images_per_second"] == 8.0
    assert found["series"] == [
        {"step": 1, "images_per_second": 4.0},
        {"step": 3, "images_per_second": 16.0},
    ]


def test_a_training_that_was_finished_keeps_its_speed(tmp_path: Path) -> None:
    first = Speed(torch.device("cpu"))
    first.add(8)
    first.write(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    Speed(torch.device("cpu")).write(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
