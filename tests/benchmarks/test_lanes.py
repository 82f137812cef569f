"""What the timing of lanes compares: as many lanes as threads, and one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.lanes import milliseconds_a_step
from tests.training.test_objectives import options


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("way", "lanes"), [("lanes", 2), ("one", 1)])
def test_each_way_has_its_lanes(way: str, lanes: int, tiny_pipeline: Path) -> None:
    found = milliseconds_a_step(tiny_pipeline, options(batch_size=32), way, 1)
    assert found["lanes"] == lanes
    assert found["milliseconds"] > 0
