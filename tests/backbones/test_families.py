"""What must hold for every family: the base at the start, stock at r = 0, its own pipeline's results, training."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLQwenImage, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.backbones.families import FAMILIES, RESOLUTION, Family
from tests.training.test_twinflow_objective import OPTIONS
from twinflow_core.backbones.backbone import SIDECAR, Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import merge_lora
from twinflow_core.backbones.target_time import sign_sensitivity
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.generation import few_step_sampler, many_step_sampler, to_pixels
from twinflow_core.sampling.few_step import few_step_times
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.objectives import make_objective
from twinflow_core.training.ranks import ALONE
from twinflow_core.training.signs import LEAST_SIGN_SENSITIVITY
from twinflow_core.training.step import Networks
from twinflow_core.training.validation import validation_loss

PROMPTS = ["a red circle", "a blue square and the red circle"]
TIMES = torch.tensor([0.9, 0.35])
STEPS = 3
CLOSE = 1e-4
TWENTY_STEPS = OPTIONS.model_copy(
    update={"steps": 20, "learning_rate": 3e-3, "ema_decay": 0.0, "log_every": 20, "checkpoint_every": 20}
)


@dataclass(frozen=True)
class Saved:
    """A family and the folder of its tiny pipeline."""

    family: Family
    folder: Path

    def load(self, folder: Path | None = None) -> Backbone:
        return load_backbone(folder or self.folder, RESOLUTION)

    def stock(self, folder: Path | None = None) -> Any:
        """Its own pipeline, in which there is nothing of this project."""
        absent = dict.fromkeys(self.family.absent)
        pipeline = DiffusionPipeline.from_pretrained(folder or self.folder, **absent)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    family: Family = request.param
    return Saved(family, family.build(tmp_path_factory.mktemp(family.name) / "base"))


@pytest.fixture
def backbone(saved: Saved) -> Backbone:
    return saved.load()


@pytest.fixture(scope="module")
def conditioning(saved: Saved) -> Conditioning:
    return saved.load().encode_prompts(PROMPTS)


@pytest.fixture(scope="module")
def x(saved: Saved) -> Tensor:
    shape = (len(PROMPTS), *saved.load().latent_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def learn(backbone: Backbone) -> None:
    """Give E2 something to say, as training would."""
    for parameter in backbone.velocity.target_time.embed.parameters():
        torch.nn.init.normal_(parameter, std=0.5)


@torch.no_grad()
def test_at_the_start_it_is_the_base_at_every_r_and_at_r_zero_always(
    backbone: Backbone, x: Tensor, conditioning: Conditioning
) -> None:
    base = backbone.velocity(x, TIMES, None, conditioning)
    for r in (torch.zeros(2), TIMES / 2, TIMES, -TIMES):
        assert torch.equal(backbone.velocity(x, TIMES, r, conditioning), base)
    learn(backbone)
    assert torch.equal(backbone.velocity(x, TIMES, torch.zeros(2), conditioning), base)
    assert not torch.allclose(backbone.velocity(x, TIMES, TIMES, conditioning), base)


@torch.no_grad()
def test_the_sign_of_time_is_seen(backbone: Backbone, x: Tensor, conditioning: Conditioning) -> None:
    there = backbone.velocity(x, TIMES, TIMES, conditioning)
    mirrored = backbone.velocity(x, -TIMES, -TIMES, conditioning)
    assert sign_sensitivity(there, mirrored) > LEAST_SIGN_SENSITIVITY


def test_gradients_reach_target_time_with_and_without_checkpointing(
    backbone: Backbone, x: Tensor, conditioning: Conditioning
) -> None:
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            backbone.pipeline.transformer.enable_gradient_checkpointing()
        backbone.velocity.zero_grad()
        backbone.velocity.train()(x, TIMES, TIMES / 2, conditioning).square().mean().backward()
        trained = [p.grad for p in backbone.velocity.target_time.parameters() if p.grad is not None]
        gradients.append(torch.cat([gradient.flatten() for gradient in trained]))
    assert float(gradients[0].abs().max()) > 0
    assert torch.allclose(*gradients, atol=1e-6)


@torch.no_grad()
def test_a_copy_has_hooks_of_its_own(backbone: Backbone, x: Tensor, conditioning: Conditioning) -> None:
    twin = backbone.velocity.copy()
    before = twin(x, TIMES, TIMES, conditioning)
    learn(backbone)
    assert torch.equal(twin(x, TIMES, TIMES, conditioning), before)
    assert not torch.allclose(backbone.velocity(x, TIMES, TIMES, conditioning), before)


@torch.no_grad()
@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
def test_many_steps_are_those_of_its_own_pipeline(
    saved: Saved, backbone: Backbone, x: Tensor, guided: bool
) -> None:
    scale = saved.family.guidance if guided else 1.0
    pipeline = saved.stock()
    expected = saved.family.call(pipeline, PROMPTS, x, scale, saved.family.many_steps(pipeline, STEPS))
    ours = many_step_sampler(backbone, STEPS, scale)(x.unsqueeze(0), backbone.encode_prompts(PROMPTS))
    assert expected.shape == ours.shape
    assert float((ours - expected).abs().max()) < CLOSE


@torch.no_grad()
def test_prompts_of_other_lengths_in_the_batch_change_nothing(backbone: Backbone, x: Tensor) -> None:
    alone = backbone.encode_prompts(PROMPTS[:1])
    among = Conditioning.cat([backbone.encode_prompts(["", *PROMPTS])])[1:2]
    one = backbone.velocity(x[:1], TIMES[:1], None, alone)
    assert torch.allclose(backbone.velocity(x[:1], TIMES[:1], None, among), one, atol=1e-5)


@torch.no_grad()
def test_latents_are_normalised_as_they_are_decoded(saved: Saved, backbone: Backbone) -> None:
    images = torch.rand(2, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = backbone.encode_images(images)
    assert latents.shape == (2, *backbone.latent_shape)
    decoded = backbone.decode_latents(latents)
    assert decoded.shape == images.shape
    vae = backbone.pipeline.vae
    frames = images.unsqueeze(2) if isinstance(vae, AutoencoderKLQwenImage) else images
    unchanged = vae(frames, return_dict=False)[0].view(images.shape)
    assert torch.allclose(decoded, (unchanged / 2 + 0.5).clamp(0, 1), atol=CLOSE)


@torch.no_grad()
def test_a_picture_is_that_of_its_own_pipeline(saved: Saved, backbone: Backbone, x: Tensor) -> None:
    pipeline = saved.stock()
    arguments = saved.family.many_steps(pipeline, STEPS) | {"output_type": "pt"}
    expected = saved.family.call(pipeline, PROMPTS, x, 1.0, arguments)
    latents = many_step_sampler(backbone, STEPS, 1.0)(x.unsqueeze(0), backbone.encode_prompts(PROMPTS))
    assert torch.allclose(backbone.decode_latents(latents), expected, atol=CLOSE)


@torch.no_grad()
def test_a_wide_picture_is_that_of_its_own_pipeline(saved: Saved, backbone: Backbone) -> None:
    height, width = RESOLUTION, 2 * RESOLUTION
    backbone.at_size(height, width)
    noise = torch.randn((2, *backbone.latent_shape), generator=torch.Generator().manual_seed(3))
    pipeline = saved.stock()
    arguments = saved.family.many_steps(pipeline, STEPS) | {"output_type": "pt"}
    expected = saved.family.call(pipeline, PROMPTS, noise, saved.family.guidance, arguments)
    sampler = many_step_sampler(backbone, STEPS, saved.family.guidance)
    drawn = backbone.decode_latents(sampler(noise.unsqueeze(0), backbone.encode_prompts(PROMPTS)))
    assert drawn.shape == expected.shape == (2, 3, height, width)
    assert torch.allclose(drawn, expected, atol=CLOSE)
    assert backbone.encode_images(drawn * 2 - 1).shape == noise.shape


@torch.no_grad()
def test_other_sizes_are_taken_or_refused(backbone: Backbone, conditioning: Conditioning) -> None:
    multiple, longest = backbone.size_multiple, backbone.longest_side
    for height, width in ((33, multiple), (multiple, 33)):
        with pytest.raises(TwinflowError, match=f"multiples of {multiple} pixels, not {width}x{height}"):
            backbone.at_size(height, width)
    backbone.at_size(3 * multiple, multiple)
    assert (backbone.height, backbone.width, backbone.image_tokens) == (3 * multiple, multiple, 3)
    assert (longest is not None) == (backbone.family in ("sd3", "z-image"))
    if longest is not None:
        backbone.at_size(multiple, longest)
        channels, height, width = backbone.latent_shape
        backbone.velocity(torch.zeros(1, channels, height, width), TIMES[:1], None, conditioning[:1])
        longer = torch.zeros(1, channels, height, width + multiple)
        with pytest.raises((ValueError, IndexError)):
            backbone.velocity(longer, TIMES[:1], None, conditioning[:1])
        with pytest.raises(TwinflowError, match=f"at most {longest} pixels") as refused:
            backbone.at_size(multiple, longest + multiple, key="data.buckets")
        assert "data.buckets" in refused.value.where


def test_a_missing_weight_and_a_pickled_one_are_refused(saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.folder, tmp_path / "model")
    path = folder / "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({name: weights[name] for name in sorted(weights)[1:]}, path)
    with pytest.raises(TwinflowError, match="lacks 1 weight"):
        saved.load(folder)
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(TwinflowError, match="pickled"):
        saved.load(folder)


def one_batch(backbone: Backbone) -> EncodedData:
    """Four rows, encoded by the family's own VAE and text encoders."""
    images = torch.rand(4, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(2)) * 2 - 1
    captions = backbone.encode_prompts(["", *PROMPTS])
    return EncodedData(backbone.encode_images(images), torch.tensor([1, 2, 1, 2]), captions)


def velocity_loss(velocity: Velocity, data: EncodedData) -> float:
    """How far F(x_t, t, t) is from z - x on the batch: rectification has no floor, so its loss need not fall."""
    plain = TWENTY_STEPS.model_copy(
        update={"objective": "flow_matching", "guidance": 0.0, "shares": {"near": 1.0}}
    )
    device = torch.device("cpu")
    return validation_loss(
        make_objective(plain), Networks(velocity, velocity, None), data, plain, device, ALONE
    )


@pytest.mark.parametrize("lora_rank", [0, 4], ids=["full", "lora"])
def test_it_learns_saves_and_draws_the_same_again_also_in_its_own_pipeline(
    saved: Saved, backbone: Backbone, x: Tensor, lora_rank: int, tmp_path: Path
) -> None:
    data = one_batch(backbone)
    training = Training(
        backbone.velocity,
        data,
        TWENTY_STEPS.model_copy(update={"lora_rank": lora_rank}),
        Resume(tmp_path, "key"),
    )
    before = velocity_loss(training.averaged, data)
    averaged = training.run()
    assert velocity_loss(averaged, data) < 0.98 * before
    backbone.velocity.load_state_dict(averaged.state_dict())
    merge_lora(backbone.velocity.transformer)
    backbone.save(tmp_path / "candidate")
    assert (tmp_path / "candidate" / SIDECAR).exists()
    drawn = one_step_image(backbone, x)
    assert np.array_equal(one_step_image(saved.load(tmp_path / "candidate"), x), drawn)
    assert not np.array_equal(one_step_image(saved.load(), x), drawn)
    pipeline = saved.stock(tmp_path / "candidate")
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    schedule = {"num_inference_steps": 1, "sigmas": few_step_times(1)}
    with torch.no_grad():
        stock = saved.family.call(pipeline, PROMPTS, x, 1.0, schedule)
        ours = few_step_sampler(backbone)(x.unsqueeze(0), backbone.encode_prompts(PROMPTS))
    assert float((stock - ours).abs().max()) < CLOSE


@torch.no_grad()
def one_step_image(backbone: Backbone, noise: Tensor) -> np.ndarray:
    latents = few_step_sampler(backbone)(noise.unsqueeze(0), backbone.encode_prompts(PROMPTS))
    return to_pixels(backbone.decode_latents(latents))
