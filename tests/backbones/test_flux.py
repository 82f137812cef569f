"""What is FLUX.1's own: a guidance input held constant, no unconditional velocity, times exact in bfloat16."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.backbones.tiny_flux import T5_TOKENS, build_tiny_flux_dev, build_tiny_flux_schnell
from tests.training.test_twinflow_objective import OPTIONS
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.flux import GUIDANCE
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import add_lora
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.errors import TwinflowError
from twinflow_core.stages.finetune import finetune_options


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(build_tiny_flux_dev(tmp_path_factory.mktemp("tiny") / "dev"))


@torch.no_grad()
def test_guidance_stays_what_the_stock_pipeline_uses_and_times_stay_exact_in_short_floats(
    dev: Backbone,
) -> None:
    embedded: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        embedded.append(arguments[0].float())

    projection = dev.pipeline.transformer.time_text_embed.time_proj
    # Registered after the hook of exact time: it sees what the sinusoids are made of.
    hook = projection.register_forward_pre_hook(note)
    t = torch.tensor([0.7031, 0.7029])
    with torch.autocast("cpu", torch.bfloat16):
        dev.velocity(torch.zeros(2, *dev.latent_shape), t, t, dev.encode_prompts(["a red circle"] * 2))
    hook.remove()
    time, guidance = embedded
    assert torch.equal(time, TIME_SCALE * t)
    assert torch.equal(guidance, torch.full((2,), TIME_SCALE * GUIDANCE).bfloat16().float())


def test_many_steps_and_training_add_no_guidance_of_their_own(
    dev: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dev.many_step_guidance(5.0) == 1
    asked = OPTIONS.model_copy(update={"guidance": 0.8})
    assert finetune_options(asked, dev) == asked.model_copy(update={"guidance": 0.0})
    assert "distilled with guidance" in capsys.readouterr().err
    with pytest.raises(TwinflowError, match="no teacher") as refused:
        finetune_options(asked.model_copy(update={"data_free": True, "real_velocity": "base"}), dev)
    assert "finetune.data_free" in refused.value.where


def test_low_rank_weights_go_into_both_kinds_of_blocks_and_not_into_the_last_layer(dev: Backbone) -> None:
    twin = dev.velocity.independent_copy()
    add_lora(twin.transformer, 2, seed=0, layers=twin.lora_layers)
    trained = {name.split(".lora_")[0] for name, p in twin.named_parameters() if ".lora_" in name}
    for block, layers in (
        ("transformer_blocks.0", ("attn.to_q", "attn.add_k_proj", "ff.net.2", "ff_context.net.0.proj")),
        ("single_transformer_blocks.0", ("attn.to_v", "proj_mlp", "proj_out")),
    ):
        assert {f"transformer.{block}.{layer}" for layer in layers} <= trained
    assert "transformer.proj_out" not in trained


def test_schnell_has_no_guidance_input_and_reads_fewer_tokens(tmp_path: Path) -> None:
    schnell = load_backbone(build_tiny_flux_schnell(tmp_path / "schnell"))
    assert schnell.max_tokens == T5_TOKENS
    schnell.pipeline.tokenizer_2.model_max_length = 512
    assert schnell.max_tokens == 256
    assert schnell.encode_prompts(["a"]).prompt_embeds.shape[1] == 256
    assert schnell.too_long(["a " * 300, "a"]) == 1
