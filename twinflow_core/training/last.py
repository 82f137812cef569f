"""The averaged weights of the last checkpoints, kept beside the training's state for people to look at or to average.

Each is written before the state of its step: a run that was killed writes again what it had not, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from twinflow_core.backbones.lora import ADAPTER
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.whole_file import whole_file

FOLDER = "last"


def keep_last(folder: Path, step: int, averages: Mapping[str, Tensor], count: int, ranks: Ranks) -> None:
    """Write `last/step_<step>.safetensors`, and remove all but the newest `count`; all ranks call this.

    Args:
        folder: of the training's state.
        step: finished steps. What is there of later ones is of a run that goes on from here, and removed too.
        averages: the averaged weights that are trained, whole or in shards, by their names in `Velocity`.
        count: at least 1.
        ranks: the first one gathers the weights and writes them.

    Raises:
        InfrastructureError: they cannot be written; the earlier ones stay.
    """
    weights = {}
    for name, value in averages.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if ranks.first:
            # As diffusers names what `load_lora_weights` reads.
            weights[name.replace(f".{ADAPTER}.", ".")] = whole.cpu().contiguous()
    if not ranks.first:
        return
    place = folder / FOLDER
    target = place / f"step_{step:06d}.safetensors"
    with whole_file(target, "The weights of a checkpoint", SafetensorError) as partial:
        save_file(weights, partial)
    steps = {int(path.stem.removeprefix("step_")): path for path in place.glob("step_*.safetensors")}
    kept = sorted(each for each in steps if each <= step)[-count:]
    for each, path in steps.items():
        if each not in kept:
            path.unlink()
