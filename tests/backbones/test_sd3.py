"""SD3 with target time: what must hold at initialisation, at r = 0, under copying, saving and loading."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from tests.tiny_pipeline import build_tiny_pipeline
from twinflow_core.backbones.backbone import SIDECAR, Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.target_time import TIME_SCALE, sign_sensitivity
from twinflow_core.errors import TwinflowError

ROWS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return load_backbone(folder)


@pytest.fixture
def inputs(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((ROWS, *backbone.latent_shape), generator=generator)
    return x, torch.rand(ROWS, generator=generator), backbone.encode_prompts(["a red circle"] * ROWS)


def stock(backbone: Backbone, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
    """The transformer as diffusers' own pipeline calls it."""
    backbone.velocity.target_time.r = None
    return backbone.pipeline.transformer(
        hidden_states=x,
        timestep=TIME_SCALE * t,
        encoder_hidden_states=conditioning.prompt_embeds,
        pooled_projections=conditioning.pooled,
    ).sample


@torch.no_grad()
def test_at_initialisation_every_target_time_gives_the_base(
    backbone: Backbone, inputs: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    x, t, conditioning = inputs
    base = stock(backbone, x, t, conditioning)
    for r in (torch.zeros_like(t), t / 2, t):
        assert torch.equal(backbone.velocity(x, t, r, conditioning), base)


@torch.no_grad()
def test_whatever_is_learnt_r_zero_is_the_stock_network(
    backbone: Backbone, inputs: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    x, t, conditioning = inputs
    torch.nn.init.normal_(backbone.velocity.target_time.embed.linear_2.weight)
    base = stock(backbone, x, t, conditioning)
    assert torch.equal(backbone.velocity(x, t, torch.zeros_like(t), conditioning), base)
    assert not torch.allclose(backbone.velocity(x, t, t, conditioning), base)


@torch.no_grad()
def test_the_sign_of_time_is_seen(
    backbone: Backbone, inputs: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    x, t, conditioning = inputs
    there, mirrored = (
        backbone.velocity(x, t, t, conditioning),
        backbone.velocity(x, -t, -t, conditioning),
    )
    assert sign_sensitivity(there, mirrored) > 1e-3
    assert sign_sensitivity(there, there) == 0


def test_target_time_gets_a_gradient(
    backbone: Backbone, inputs: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    x, t, conditioning = inputs
    backbone.velocity(x, t, t, conditioning).square().mean().backward()
    gradient = backbone.velocity.target_time.embed.linear_2.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0


@torch.no_grad()
def test_a_copy_has_a_hook_of_its_own(
    backbone: Backbone, inputs: tuple[torch.Tensor, torch.Tensor, Conditioning]
) -> None:
    x, t, conditioning = inputs
    twin = backbone.velocity.copy()
    before = twin(x, t, t, conditioning)
    torch.nn.init.ones_(backbone.velocity.target_time.embed.linear_2.weight)
    assert torch.equal(twin(x, t, t, conditioning), before)
    torch.nn.init.ones_(twin.target_time.embed.linear_2.weight)
    assert torch.equal(twin(x, t, t, conditioning), backbone.velocity(x, t, t, conditioning))


@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_and_a_stock_pipeline_loads_it(
    backbone: Backbone,
    inputs: tuple[torch.Tensor, torch.Tensor, Conditioning],
    tmp_path: Path,
) -> None:
    x, t, conditioning = inputs
    torch.nn.init.normal_(backbone.velocity.target_time.embed.linear_2.weight)
    backbone.save(tmp_path / "saved")
    again = load_backbone(tmp_path / "saved")
    assert torch.equal(again.velocity(x, t, t, conditioning), backbone.velocity(x, t, t, conditioning))
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "saved", text_encoder_3=None, tokenizer_3=None
    )
    names = set(pipeline.transformer.state_dict())
    assert names == set(stock_names(backbone))
    assert (tmp_path / "saved" / SIDECAR).exists()


def stock_names(backbone: Backbone) -> list[str]:
    return list(backbone.pipeline.transformer.state_dict())


@torch.no_grad()
def test_images_survive_the_vae_normalisation(backbone: Backbone) -> None:
    images = torch.rand(2, 3, backbone.height, backbone.width) * 2 - 1
    latents = backbone.encode_images(images)
    assert latents.shape == (2, *backbone.latent_shape)
    decoded = backbone.decode_latents(latents)
    assert decoded.shape == images.shape
    assert float(decoded.min()) >= 0
    assert float(decoded.max()) <= 1


def test_folders_that_are_no_supported_pipeline_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError, match="no diffusers pipeline"):
        load_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "OtherPipeline"}')
    with pytest.raises(TwinflowError, match="OtherPipeline"):
        load_backbone(tmp_path)
