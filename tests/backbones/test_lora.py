"""Low-rank weights on a real, tiny SD3: invisible at the start, alone in training, gone after merging."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import add_lora, merge_lora

Inputs = tuple[Tensor, Tensor, Tensor, Conditioning]


@pytest.fixture
def backbone(tiny_pipeline: Path) -> Backbone:
    return load_backbone(tiny_pipeline)


@pytest.fixture
def inputs(backbone: Backbone) -> Inputs:
    x = torch.randn((2, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.9, 0.3])
    return x, t, t / 2, backbone.encode_prompts(["a red circle"] * 2)


@torch.no_grad()
def test_adding_changes_no_bit_and_merging_keeps_what_was_learnt(backbone: Backbone, inputs: Inputs) -> None:
    velocity = backbone.velocity
    names = list(velocity.state_dict())
    before = velocity(*inputs)
    add_lora(velocity.transformer, 4, seed=0)
    assert torch.equal(velocity(*inputs), before)
    for name, parameter in velocity.transformer.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1)
    learnt = velocity(*inputs)
    assert not torch.allclose(learnt, before)
    merge_lora(velocity.transformer)
    assert list(velocity.state_dict()) == names
    assert torch.allclose(velocity(*inputs), learnt, atol=1e-5)


def test_only_low_rank_weights_are_trained_and_copies_share_the_rest(backbone: Backbone) -> None:
    velocity = backbone.velocity
    add_lora(velocity.transformer, 4, seed=0)
    trained = {name for name, p in velocity.transformer.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    twin = velocity.copy()
    for (name, mine), theirs in zip(velocity.named_parameters(), twin.parameters(), strict=True):
        assert (mine is theirs) == (not mine.requires_grad), name


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone(tiny_pipeline: Path) -> None:
    weights = []
    for _ in range(2):
        velocity = load_backbone(tiny_pipeline).velocity
        before = torch.get_rng_state()
        add_lora(velocity.transformer, 4, seed=7)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(torch.cat([p.flatten() for p in velocity.parameters() if p.requires_grad]))
    assert torch.equal(*weights)
