"""What is FLUX.2's own: whitened latents of patches, fused layers, guidance by an input or by two velocities."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.backbones.tiny_flux2 import MAX_TOKENS, build_tiny_flux2_dev, build_tiny_flux2_klein
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import add_lora, merge_lora
from twinflow_core.backbones.target_time import TIME_SCALE
from twinflow_core.errors import TwinflowError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_flux2_klein(tmp_path_factory.mktemp("tiny") / "klein")


@pytest.fixture(scope="module")
def klein(folder: Path) -> Backbone:
    return load_backbone(folder)


@torch.no_grad()
def test_latents_are_those_that_the_pipeline_makes_of_an_image(klein: Backbone) -> None:
    images = torch.rand(2, 3, klein.height, klein.width) * 2 - 1
    latents = klein.encode_images(images)
    assert torch.allclose(latents, klein.pipeline._encode_vae_image(images, None), atol=1e-6)
    assert latents.shape == (2, *klein.latent_shape)


@torch.no_grad()
def test_times_stay_exact_where_the_layers_are_in_short_floats(klein: Backbone) -> None:
    short = klein.velocity.independent_copy().bfloat16()
    asked: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        asked.append(arguments[0])

    short.transformer.time_guidance_embed.time_proj.register_forward_pre_hook(note)
    t = torch.tensor([0.7031])
    embeds = klein.encode_prompts(["a red circle"]).prompt_embeds.bfloat16()
    short(torch.zeros(1, *klein.latent_shape, dtype=torch.bfloat16), t, t, Conditioning(embeds))
    assert torch.equal(asked[0], TIME_SCALE * t)


def test_low_rank_weights_go_into_fused_layers_and_merge(klein: Backbone) -> None:
    twin = klein.velocity.independent_copy()
    names = list(twin.state_dict())
    add_lora(twin.transformer, 2, seed=0, layers=twin.lora_layers)
    trained = {name.split(".lora_")[0] for name, p in twin.named_parameters() if ".lora_" in name}
    for block, layers in (
        (
            "transformer_blocks.0",
            ("attn.to_out.0", "attn.add_q_proj", "ff.linear_in", "ff_context.linear_out"),
        ),
        ("single_transformer_blocks.0", ("attn.to_qkv_mlp_proj", "attn.to_out")),
    ):
        assert {f"transformer.{block}.{layer}" for layer in layers} <= trained
    merge_lora(twin.transformer)
    assert list(twin.state_dict()) == names


def test_guidance_is_built_into_a_klein_that_was_distilled_alone(klein: Backbone) -> None:
    assert klein.many_step_guidance(3.0) == 3
    klein.pipeline.register_to_config(is_distilled=True)
    assert klein.many_step_guidance(3.0) == 1
    klein.pipeline.register_to_config(is_distilled=False)


def test_captions_are_cut_with_their_chat_counted(klein: Backbone) -> None:
    assert klein.max_tokens == MAX_TOKENS
    assert klein.encode_prompts(["red"]).prompt_embeds.shape[1] == MAX_TOKENS
    assert klein.too_long(["a red circle", "red " * MAX_TOKENS]) == 1


@torch.no_grad()
def test_dev_takes_guidance_as_an_input_as_its_pipeline_does(tmp_path: Path) -> None:
    dev = load_backbone(build_tiny_flux2_dev(tmp_path / "dev"))
    prompt = ["a red circle"]
    noise = torch.randn((1, *dev.latent_shape), generator=torch.Generator().manual_seed(0))
    scheduler = dev.many_step_scheduler(1, noise.device)
    v = dev.velocity(noise, scheduler.timesteps / 1000, None, dev.encode_prompts(prompt))
    latents = scheduler.step(v, scheduler.timesteps[0], noise, return_dict=False)[0]
    stock = dev.pipeline(
        prompt=prompt,
        latents=noise,
        num_inference_steps=1,
        height=dev.height,
        width=dev.width,
        output_type="pt",
    ).images
    assert torch.equal(dev.decode_latents(latents), stock)
    assert dev.too_long([*prompt, "red " * 600]) == 1


def test_dev_says_what_its_tokenizer_needs(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "Flux2Pipeline", "tokenizer": ["transformers", "PixtralProcessor"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(TwinflowError, match="torchvision"):
        load_backbone(tmp_path)
