"""Frozen linear layers in eight or four bits: low-rank weights are trained on top of them, at full precision."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["int8", "nf4"]
BLOCK = 64
INT8_LARGEST = 127


class QuantizedLinear(nn.Linear):
    """A linear layer whose weight is kept in few bits, and made anew in each pass: forwards and backwards.

    `int8`: a byte a weight and a scale an output channel. `nf4`: half a byte a weight at the 16 levels of a normal
    distribution's quantiles (arXiv 2305.14314) and a scale each 64 weights in the order of memory, 0.5625 bytes.
    Scales are float32. It has no gradient of its own weight.

    Args:
        layer: the layer to replace; its bias is taken over.
        kind: the format.
    """

    def __init__(self, layer: nn.Linear, kind: Kind) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kind = layer.in_features, layer.out_features, kind
        codes, scales = (_to_int8 if kind == "int8" else _to_nf4)(layer.weight.detach().float())
        # Parameters rather than buffers: copies of a network share those that are frozen.
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight as it acts, float32 [out, in], made for this call; writing to it changes nothing."""
        if self.kind == "int8":
            return self.codes * self.scales
        pairs = torch.stack([self.codes >> 4, self.codes & 15], dim=-1)
        blocks = nf4_levels(pairs.device)[pairs.int()].view(-1, BLOCK) * self.scales
        return blocks.view(-1)[: self.out_features * self.in_features].view(
            self.out_features, self.in_features
        )

    def forward(self, input: Tensor) -> Tensor:
        """x W^T + b in the type of x, or in autocast's."""
        kind = input.device.type
        x = input.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else input
        product = _Product.apply(x, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)


class _Product(torch.autograd.Function):
    """x W^T that keeps no dequantised weight for the backward pass."""

    @staticmethod
    def forward(x: Tensor, layer: QuantizedLinear) -> Tensor:
        return nn.functional.linear(x, layer.weight.to(x.dtype))

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        context.layer = inputs[1]

    @staticmethod
    def jvp(context: Any, *tangents: Any) -> Tensor:
        return nn.functional.linear(tangents[0], context.layer.weight.to(tangents[0].dtype))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ context.layer.weight.to(gradients[0].dtype), None


def quantize_blocks(transformer: nn.Module, kind: Kind) -> None:
    """Replace every linear layer of the transformer's repeated blocks, in place.

    What stands before and after the blocks (patches, times, text, the last projection) is small and sensitive, and
    stays as it is.
    """
    for blocks in [child for child in transformer.children() if isinstance(child, nn.ModuleList)]:
        for name, layer in list(blocks.named_modules()):
            if type(layer) is nn.Linear:
                parent, _, attribute = name.rpartition(".")
                setattr(blocks.get_submodule(parent), attribute, QuantizedLinear(layer, kind))


@functools.cache
def nf4_levels(device: torch.device) -> Tensor:
    """The 16 levels, float32, sorted from -1 to 1: quantiles of N(0, 1), 7 below zero and 8 above, and zero itself."""
    # Half-way between the tails that 15 and 16 equal parts would leave out.
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    above = torch.special.ndtri(torch.linspace(0.5, outermost, 9, dtype=torch.float64)[1:])
    below = -torch.special.ndtri(torch.linspace(0.5, outermost, 8, dtype=torch.float64)[1:]).flip(0)
    levels = torch.cat([below, torch.zeros(1, dtype=torch.float64), above])
    return (levels / levels[-1]).float().to(device)


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(dim=1, keepdim=True) / INT8_LARGEST
    codes = (weight / scales.clamp_min(torch.finfo(torch.float32).tiny)).round()
    return codes.to(torch.int8), scales


def _to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes uint8 [values / 2], the first of a pair in the upper half; scales [blocks, 1]."""
    flat = weight.reshape(-1)
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    levels = nf4_levels(weight.device)
    unit = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)
    codes = torch.bucketize(unit, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8).view(-1, 2)
    return (codes[:, 0] << 4) | codes[:, 1], scales
