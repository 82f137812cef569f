"""What is Sana's own: its solver's times, and the instruction before every prompt but the empty one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, SanaPipeline

from tests.backbones.families import RESOLUTION
from tests.backbones.tiny_sana import build_tiny_sana, call_sana
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import add_lora
from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.generation import many_step_sampler

PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sana(tmp_path_factory.mktemp("sana") / "base")


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return load_backbone(folder, RESOLUTION)


@torch.no_grad()
def test_euler_steps_are_its_solvers_at_first_order(folder: Path, backbone: Backbone) -> None:
    pipeline = SanaPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.scheduler.config
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(config, solver_order=1)
    noise = torch.randn((2, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))
    expected = call_sana(pipeline, PROMPTS, noise, 4.5, {"num_inference_steps": 4})
    ours = many_step_sampler(backbone, 4, 4.5)(noise.unsqueeze(0), backbone.encode_prompts(PROMPTS))
    # The solver tells the network whole thousandths of time.
    assert float((ours - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_a_scheduler_of_no_flow_is_refused(backbone: Backbone) -> None:
    backbone.pipeline.scheduler = DPMSolverMultistepScheduler()
    with pytest.raises(TwinflowError, match="does not sample a flow"):
        backbone.many_step_scheduler(4, torch.device("cpu"))


def test_rows_keep_their_order_and_the_empty_prompt_has_no_instruction(backbone: Backbone) -> None:
    mixed = backbone.encode_prompts(["", "a red circle", ""])
    assert mixed.mask is not None
    begin_alone, red = backbone.encode_prompts([""]), backbone.encode_prompts(["a red circle"])
    assert mixed.mask.sum(dim=1).tolist() == [1, 4, 1]
    assert torch.allclose(mixed.prompt_embeds[1, :4], red.prompt_embeds[0], atol=1e-5)
    assert torch.allclose(mixed.prompt_embeds[0, :1], begin_alone.prompt_embeds[0], atol=1e-5)
    # The instruction is not kept, but what follows it has read it.
    plain = backbone.pipeline.encode_prompt(
        "a red circle", do_classifier_free_guidance=False, complex_human_instruction=None
    )[0]
    assert not torch.allclose(plain[0, 1:4], red.prompt_embeds[0, 1:4], atol=1e-3)


def test_low_rank_weights_go_into_the_convolutions_of_one_pixel_too(backbone: Backbone) -> None:
    velocity = backbone.velocity
    add_lora(velocity.transformer, 2, 0, velocity.lora_layers)
    trained = {name.split(".lora_")[0] for name, p in velocity.named_parameters() if p.requires_grad}
    block = "transformer.transformer_blocks.1"
    layers = ("attn1.to_q", "attn2.to_out.0", "ff.conv_inverted", "ff.conv_point")
    assert {f"{block}.{layer}" for layer in layers} <= trained
    assert f"{block}.ff.conv_depth" not in trained
