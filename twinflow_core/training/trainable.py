"""The network as it is trained: what of it moves, in which numbers it is kept, and its frozen and averaged twins."""

from __future__ import annotations

from twinflow_core.backbones.lora import add_lora, remove_lora
from twinflow_core.backbones.quantized import quantize_blocks
from twinflow_core.backbones.short_weights import shorten
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.finetune_params import FinetuneParams


def make_trainable(online: Velocity, options: FinetuneParams) -> Velocity:
    """The network with everything marked to be trained, or low-rank weights and the target time; changed in place.

    Args:
        online: as loaded, float32; on the CPU, so that no device ever holds it at its full size.
        options: says whether its weights are quantised, rounded, low-rank, and whether activations are kept.
    """
    online.requires_grad_(True)
    if options.gradient_checkpointing:
        online.transformer.enable_gradient_checkpointing()
    if options.quantized_base != "none":
        quantize_blocks(online.transformer, options.quantized_base)
    if options.lora_rank:
        add_lora(online.transformer, options.lora_rank, options.seed, online.lora_layers)
    if options.weights == "bfloat16":
        shorten(online)
    return online


def frozen_base(online: Velocity) -> Velocity:
    """The untrained network as a copy that shares what is frozen; low-rank terms, still zero, are left out."""
    base = online.copy()
    remove_lora(base.transformer)
    return base
