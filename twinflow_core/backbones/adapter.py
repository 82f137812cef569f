"""What a low-rank run has learnt, apart from the base: written as stock diffusers reads it, or put on a fresh base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.lora import add_lora, is_lora
from twinflow_core.backbones.velocity import Velocity

FOLDER = Path("lora")
TARGET_TIME = "target_time.safetensors"


def put_adapter(learnt: Velocity, fresh: Velocity, rank: int) -> None:
    """Give a freshly loaded network the low-rank terms and the target time of another.

    Args:
        learnt: has low-rank weights; its own layers may be rounded or quantised, and are not read.
        fresh: the float32 base without low-rank weights; changed in place.
        rank: of the terms.
    """
    add_lora(fresh.transformer, rank, 0, fresh.lora_layers)
    fresh.transformer.load_state_dict(_low_rank_weights(learnt.transformer), strict=False)
    fresh.target_time.load_state_dict(learnt.target_time.state_dict())


def save_adapter(backbone: Backbone, folder: Path) -> None:
    """Write `lora/`: the adapter for `load_lora_weights`, and the target time, which few-step sampling does not need.

    Args:
        backbone: with low-rank weights, before they are merged.
        folder: gets the folder `lora`.
    """
    layers: dict[str, Any] = get_peft_model_state_dict(backbone.velocity.transformer)
    target = folder / FOLDER
    target.mkdir(parents=True)
    # Without metadata their reader takes a scale of 1, as in training; it would hold a set, in no fixed order.
    backbone.pipeline_type.save_lora_weights(target, transformer_lora_layers=layers)
    save_file(backbone.velocity.target_time.state_dict(), target / TARGET_TIME)


def _low_rank_weights(transformer: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in transformer.state_dict().items() if is_lora(name)}
