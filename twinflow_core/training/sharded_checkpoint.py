"""Training state in shards: every rank writes its own, any number of ranks reads them; published in one move."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from twinflow_core.errors import TwinflowError
from twinflow_core.full_disk import cannot_write
from twinflow_core.training.ranks import Ranks

RECORD = "shards.json"


@dataclass(frozen=True)
class Shards:
    """A published state: its finished steps, the log so far, and the folder of its tensors."""

    step: int
    log: list[dict[str, float]]
    folder: Path


def save_shards(
    folder: Path, key: str, step: int, tensors: dict[str, Tensor], log: list[dict[str, float]], ranks: Ranks
) -> None:
    """Write the state after `step` finished steps; all ranks call this together.

    The record names the folder of a state that is whole: until it is replaced, the earlier state counts.

    Args:
        folder: where states of this run live, on a disk that all ranks share.
        key: hash of all that defines the run.
        step: finished steps.
        tensors: by name; each rank gives its shards.
        log: metrics so far.
        ranks: the first one publishes.

    Raises:
        InfrastructureError: it cannot be written; the earlier state stays.
    """
    target = folder / f"shards-{step}"
    try:
        if ranks.first:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
        ranks.wait()
        dcp.save(dict(tensors), checkpoint_id=target)
        if ranks.first:
            record = {"key": key, "step": step, "log": log, "folder": target.name}
            partial = folder / f"{RECORD}.partial"
            partial.write_text(json.dumps(record), encoding="utf-8")
            os.replace(partial, folder / RECORD)
            remove_shards(folder, keep=target)
    except CheckpointException as error:
        cause = next(exception for exception, _ in error.failures.values())
        raise cannot_write("The training state", cause, str(target)) from error
    except OSError as error:
        raise cannot_write("The training state", error, str(target)) from error


def find_shards(folder: Path, key: str) -> Shards | None:
    """The last published state of a run with this key, or None.

    Raises:
        TwinflowError: the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = Shards(record["step"], record["log"], folder / record["folder"])
        return found if record["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(error, path) from error


def load_shards(shards: Shards, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Fill the tensors, whole or sharded over any number of ranks, with those of the state.

    Raises:
        TwinflowError: a file is missing or damaged, or the tensors are not those of this run.
    """
    try:
        with warnings.catch_warnings():
            # It warns of a single process, even of one that asks for that.
            warnings.simplefilter("ignore", UserWarning)
            dcp.load(dict(tensors), checkpoint_id=shards.folder, no_dist=ranks.mesh is None)
    except CheckpointException as error:
        raise _damaged(next(exception for exception, _ in error.failures.values()), shards.folder) from error
    except (OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise _damaged(error, shards.folder) from error


def remove_shards(folder: Path, keep: Path | None = None) -> None:
    """Remove the states in shards, all or all but one."""
    if keep is None:
        (folder / RECORD).unlink(missing_ok=True)
    for old in folder.glob("shards-*"):
        if old != keep:
            shutil.rmtree(old, ignore_errors=True)


def _damaged(error: BaseException, path: Path) -> TwinflowError:
    return TwinflowError(
        f"The training state cannot be read ({type(error).__name__}).",
        where=str(path),
        fix=f"Remove {RECORD} in the folder of this run's state: training then starts from its first step.",
    )
