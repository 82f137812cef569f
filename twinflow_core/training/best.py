"""The averaged weights of the step with the lowest held-out loss, kept beside the state that a run goes on from.

Which step that is follows from the log alone, so that a run that was killed ends with the same weights.
"""

from __future__ import annotations

import math
from dataclasses import replace

from twinflow_core.errors import TwinflowError
from twinflow_core.training.checkpoint import FILE, load_state, save_state
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.resumption import Log, Resume, Trained
from twinflow_core.training.sharded_checkpoint import find_shards, load_shards, remove_shards, save_shards
from twinflow_core.training.sharding import put

FOLDER = "best"


def best_step(log: Log) -> int | None:
    """The first step with the lowest finite validation loss; None where none was measured."""
    rows = [row for row in log if math.isfinite(row.get("validation_loss", math.nan))]
    return int(min(rows, key=lambda row: row["validation_loss"])["step"]) if rows else None


def save_best(resume: Resume, trained: Trained, step: int, ranks: Ranks) -> None:
    """Keep the averaged weights after `step` finished steps in place of those kept before; all ranks call this.

    Raises:
        InfrastructureError: they cannot be written; the earlier ones stay.
    """
    place = resume.folder / FOLDER
    if ranks.mesh is None:
        save_state(place, resume.key, step, trained.averages())
        remove_shards(place)
        return
    save_shards(place, resume.key, step, trained.averages(), [], ranks)
    if ranks.first:
        (place / FILE).unlink(missing_ok=True)


def take_best(resume: Resume, trained: Trained, step: int, ranks: Ranks) -> None:
    """Give the averaged network the weights that were kept after `step` finished steps; all ranks call this.

    Raises:
        TwinflowError: those that are kept are of another step, or damaged.
    """
    place = replace(resume, folder=resume.folder / FOLDER)
    whole = load_state(place.folder, place.key, mapped=ranks.mesh is not None)
    shards = find_shards(place.folder, place.key)
    if shards is not None and shards.step == step:
        load_shards(shards, trained.averages(), ranks)
    elif whole is not None and whole[0] == step:
        for name, weight in trained.averages().items():
            put(weight, whole[1][name])
    else:
        raise TwinflowError(
            f"The weights after step {step}, whose held-out loss was lowest, are gone.",
            where=str(place.folder),
            fix=f"Remove {resume.folder}: training then starts from its first step.",
        )
