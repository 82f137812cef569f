"""Training state on disk: written whole or not at all, and refused if it belongs to another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from twinflow_core.errors import TwinflowError
from twinflow_core.training.whole_file import whole_file

FILE = "state.pt"


def save_state(folder: Path, key: str, step: int, parts: dict[str, Any]) -> None:
    """Write the state after `step` finished steps; an earlier one is replaced in one move.

    Args:
        folder: where states of this run live.
        key: hash of all that defines the run; a state with another key is never resumed.
        step: finished steps.
        parts: state dicts by name.

    Raises:
        InfrastructureError: it cannot be written; the earlier state stays.
    """
    with whole_file(folder / FILE, "The training state", RuntimeError) as partial:
        torch.save({"key": key, "step": step, "parts": parts}, partial)


def load_state(folder: Path, key: str, mapped: bool = False) -> tuple[int, dict[str, Any]] | None:
    """The finished steps and state dicts of a run with this key, or None if there are none.

    Args:
        folder: where states of this run live.
        key: see `save_state`.
        mapped: leave the tensors in the file until they are read, where many processes read it.

    Raises:
        TwinflowError: the file is damaged, or holds more than tensors and plain values.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return (state["step"], state["parts"]) if state["key"] == key else None
    except MemoryError:
        raise
    # A damaged archive is met with RuntimeError, EOFError, UnpicklingError, KeyError and others.
    except Exception as error:
        raise TwinflowError(
            f"The training state cannot be read ({type(error).__name__}).",
            where=str(path),
            fix="Remove this file: training then starts from its first step.",
        ) from error
