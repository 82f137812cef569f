"""What a low-rank run has learnt, apart from the base, written as stock diffusers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from twinflow_core.backbones.backbone import Backbone

FOLDER = Path("lora")
TARGET_TIME = "target_time.safetensors"


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
