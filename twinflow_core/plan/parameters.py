"""How many parameters a transformer has, and of what kind: counted on the real class without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from twinflow_core.plan.families import FAMILIES
from twinflow_core.plan.named_models import PlannedModel
from twinflow_core.plan.trace import build, target_time_like


@dataclass(frozen=True)
class Parameters:
    """Numbers of values.

    Attributes:
        transformer: of all its parameters.
        target_time: of the time MLP's copy, which is always trained.
        buffers: values that are stored and not trained, like tables of positions.
        lora_a_rank: of low-rank weights, for each rank.
        largest_block: of the block that has most.
        in_blocks: of all blocks.
        block_linears: of the weights of linear layers in blocks, which a quantised base rounds.
        block_rows: output channels of those layers.
        largest_linear: of the largest such weight.
        largest: of the largest parameter.
    """

    transformer: int
    target_time: int
    buffers: int
    lora_a_rank: int
    largest_block: int
    in_blocks: int
    block_linears: int
    block_rows: int
    largest_linear: int
    largest: int


def count_parameters(model: PlannedModel) -> Parameters:
    """Build the transformer on the meta device and count."""
    family = FAMILIES[model.class_name]
    network: Any = build(model.class_name, model.config)
    blocks = [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]
    linears = [part for block in blocks for part in block.modules() if isinstance(part, nn.Linear)]
    ends = tuple(f".{layer}" for layer in family.lora_layers)
    adapted = [part for name, part in network.named_modules() if f".{name}".endswith(ends)]
    sizes = [_values(block) for block in blocks]
    return Parameters(
        transformer=_values(network),
        target_time=_values(target_time_like(network, family)),
        buffers=sum(buffer.numel() for buffer in network.buffers()),
        lora_a_rank=sum(_values_a_rank(layer) for layer in adapted),
        largest_block=max(sizes),
        in_blocks=sum(sizes),
        block_linears=sum(layer.weight.numel() for layer in linears),
        block_rows=sum(layer.out_features for layer in linears),
        largest_linear=max(layer.weight.numel() for layer in linears),
        largest=max(parameter.numel() for parameter in network.parameters()),
    )


def _values_a_rank(layer: nn.Module) -> int:
    """A row of the first factor and a column of the second; a convolution's are of one pixel."""
    if isinstance(layer, nn.Linear):
        return layer.in_features + layer.out_features
    return layer.in_channels + layer.out_channels if isinstance(layer, nn.Conv2d) else 0


def _values(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
