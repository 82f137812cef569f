"""Tracing leaves the loaded pipeline as it was, and a family that is not known is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.export.denoiser import DenoiserGraphs
from twinflow_core.export.families import FAMILIES
from twinflow_core.export.graphs import MarkedDecoder, MarkedVelocity


def test_the_pipeline_is_left_as_it_is(tiny_pipeline: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    transformer, vae = backbone.pipeline.transformer, backbone.pipeline.vae
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in transformer.modules()]
    example = backbone.encode_prompts(["a red circle", ""])
    marked = MarkedVelocity(backbone, FAMILIES["sd3"], example)
    marked.at(1.0, example, backbone.latent_shape)
    MarkedDecoder(backbone)(torch.zeros(1, *backbone.latent_shape))
    assert hooks == [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in transformer.modules()
    ]
    assert "decode" not in vars(vae)


def test_the_transformers_own_call_is_learnt(tiny_pipeline: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    marked = MarkedVelocity(backbone, FAMILIES["sd3"], backbone.encode_prompts(["a red circle", ""]))
    assert marked.cut_at == ["timestep"]
    assert marked.renamed == {
        "hidden_states": "hidden_states",
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }


def test_an_unknown_family_is_refused() -> None:
    unknown: Any = SimpleNamespace(family="pixels")
    with pytest.raises(TwinflowError, match="no graphs"):
        DenoiserGraphs(unknown, 20)
