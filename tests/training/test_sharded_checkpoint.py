"""A state in shards is published in one move: killed, damaged or foreign, it is never taken for a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.training.ranks import ALONE
from twinflow_core.training.sharded_checkpoint import RECORD, find_shards, load_shards, save_shards

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def save(folder: Path, step: int, key: str = "k") -> None:
    tensors = {"weight": torch.full((3, 2), float(step)), "state": torch.tensor(float(step))}
    save_shards(folder, key, step, tensors, [{"loss": float(step)}], ALONE)


def loaded(folder: Path) -> tuple[int, float]:
    """The steps that the record tells, and the value that the tensors hold."""
    shards = find_shards(folder, "k")
    assert shards is not None
    tensors = {"weight": torch.zeros(3, 2), "state": torch.zeros(())}
    load_shards(shards, tensors, ALONE)
    assert tensors["weight"].unique().item() == tensors["state"].item() == shards.log[-1]["loss"]
    return shards.step, tensors["state"].item()


def test_the_last_state_is_found_alone(tmp_path: Path) -> None:
    assert find_shards(tmp_path, "k") is None
    for step in (2, 4):
        save(tmp_path, step)
    assert loaded(tmp_path) == (4, 4.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards-4", RECORD]
    assert find_shards(tmp_path, "another key") is None


def test_killed_while_saving_keeps_the_previous_state_and_the_next_save_takes_its_place(
    tmp_path: Path,
) -> None:
    save(tmp_path, 2)
    half = tmp_path / "shards-4"
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half of it")
    (half / "__1_0.distcp").write_bytes(b"of another world size")
    assert loaded(tmp_path) == (2, 2.0)
    save(tmp_path, 4)
    assert loaded(tmp_path) == (4, 4.0)
    assert not (half / "__1_0.distcp").exists()


def test_what_cannot_be_written_keeps_the_previous_state(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (tmp_path / "shards-4").write_text("a file where a folder should be")
    with pytest.raises(InfrastructureError, match="cannot be written"):
        save(tmp_path, 4)
    assert loaded(tmp_path) == (2, 2.0)


@pytest.mark.parametrize("damage", ["cut", "gone", "record", "metadata"])
def test_a_damaged_state_is_one_message(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 2)
    file = tmp_path / "shards-2/__0_0.distcp"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:10])
    elif damage == "gone":
        file.unlink()
    elif damage == "metadata":
        (tmp_path / "shards-2/.metadata").write_bytes(b"\x80")
    else:
        (tmp_path / RECORD).write_text('{"key": "k"')
    with pytest.raises(TwinflowError, match="cannot be read"):
        loaded(tmp_path)
