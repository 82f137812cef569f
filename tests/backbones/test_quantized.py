"""Frozen layers in few bits: what they hold, what passes through them, what they take."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import add_lora
from twinflow_core.backbones.quantized import Kind, QuantizedLinear, nf4_levels, quantize_blocks

BITS: dict[Kind, float] = {"int8": 8.0, "nf4": 4.5}


def linear(inputs: int, outputs: int, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.normal_(generator=draws)
        layer.bias.normal_(generator=draws)
    return layer.requires_grad_(False)


def test_the_levels_are_those_of_the_paper() -> None:
    # arXiv 2305.14314, appendix E.
    published = [
        -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
    ]  # fmt: skip
    assert torch.allclose(nf4_levels(torch.device("cpu")), torch.tensor(published), atol=1e-6)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_weight_of_any_shape_comes_back_within_half_a_level(inputs: int, outputs: int, seed: int) -> None:
    layer = linear(inputs, outputs, seed)
    eight = QuantizedLinear(layer, "int8").weight - layer.weight
    rows = layer.weight.abs().amax(dim=1, keepdim=True)
    assert (eight.abs() <= rows / 127 / 2 * 1.001).all()
    four = QuantizedLinear(layer, "nf4").weight - layer.weight
    widest = float(nf4_levels(torch.device("cpu")).diff().max()) / 2
    assert float(four.abs().max()) <= float(layer.weight.abs().max()) * widest * 1.001


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_passes_are_those_of_the_rounded_layer_and_keep_no_whole_weight(kind: Kind) -> None:
    layer = QuantizedLinear(linear(64, 96), kind)
    plain = linear(64, 96)
    plain.weight.copy_(layer.weight)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y = layer(x)
    assert sum(kept) == 0
    assert torch.allclose(y, plain(x), atol=1e-5)
    (mine,) = torch.autograd.grad(y.square().sum(), x)
    (theirs,) = torch.autograd.grad(plain(x).square().sum(), x)
    assert torch.allclose(mine, theirs, atol=1e-3)
    direction = torch.ones_like(x)
    _, forwards = torch.func.jvp(layer, (x.detach(),), (direction,))
    assert torch.allclose(forwards, direction @ layer.weight.T, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_blocks_of_a_real_model_shrink_and_low_rank_weights_go_on_top(
    kind: Kind, tiny_pipeline: Path
) -> None:
    velocity = load_backbone(tiny_pipeline).velocity
    whole = {name: p.numel() for name, p in velocity.transformer.named_parameters() if "blocks" in name}
    before = velocity.transformer.proj_out.weight.clone()
    quantize_blocks(velocity.transformer, kind)
    layers = [module for module in velocity.transformer.modules() if isinstance(module, QuantizedLinear)]
    weights = sum(each.in_features * each.out_features for each in layers)
    assert weights > 0.9 * sum(whole.values())
    held = sum(each.codes.nbytes + each.scales.nbytes for each in layers)
    # A scale an output channel weighs more on a layer that is 32 wide than on a real one.
    extra = sum(4 * each.out_features for each in layers) if kind == "int8" else 0
    assert held == pytest.approx(weights * BITS[kind] / 8 + extra, rel=0.01)
    assert velocity.transformer.proj_out.weight.equal(before)
    add_lora(velocity.transformer, 4, seed=0)
    trained = {name: p for name, p in velocity.transformer.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    twin = velocity.copy()
    mine = dict(velocity.named_parameters())
    assert all(p is mine[name] for name, p in twin.named_parameters() if "codes" in name or "scales" in name)
