"""Low-rank weights on a transformer's linear layers: trained in place of the layers, merged before saving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

ADAPTER = "default"
# Attention and feed-forward projections and the time MLP of diffusers' transformers, by the end of their names.
LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    "net.0.proj", "net.2", "timestep_embedder.linear_1", "timestep_embedder.linear_2",
)  # fmt: skip


def add_lora(transformer: nn.Module, rank: int, seed: int, layers: Sequence[str] = LAYERS) -> None:
    """Give every one of `layers` a low-rank term that starts at zero, and freeze all but these terms.

    Args:
        transformer: changed in place; it computes the same bits as before.
        rank: of the terms; their scale is 1 (alpha equals the rank), as in the paper's LoRA runs.
        seed: of their first factor; torch's global state is left alone.
        layers: ends of layers' names; a family's are `Velocity.lora_layers`.
    """
    # By whole names: an end of a name can be a layer in one block and a list of layers in another.
    ends = tuple(f".{layer}" for layer in layers)
    kinds = (nn.Linear, nn.Conv2d)
    names = [n for n, module in transformer.named_modules() if isinstance(module, kinds) and n.endswith(ends)]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, init_lora_weights="gaussian")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, transformer, ADAPTER)
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def merge_lora(transformer: nn.Module) -> None:
    """Add the low-rank terms to their layers and put the stock layers back in place."""
    for name, module in list(transformer.named_modules()):
        if isinstance(module, BaseTunerLayer):
            layer: Any = module
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(transformer.get_submodule(parent), attribute, layer.get_base_layer())
    vars(transformer).pop("peft_config", None)
