"""What is Z-Image's own: times run from noise to data, keep their sign, and captions come without padding."""

import pytest
import torch
from torch import Tensor, nn

from tests.backbones.tiny_z_image import MAX_TOKENS, build_tiny_z_image
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.target_time import TIME_SCALE, sign_sensitivity

CAPTIONS = ["", "a red circle"]
TIMES = torch.tensor([0.9, 0.3])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(build_tiny_z_image(tmp_path_factory.mktemp("tiny") / "z-image"))


@pytest.fixture
def x(backbone: Backbone) -> Tensor:
    return torch.randn((2, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_network_is_asked_at_one_minus_t_so_that_the_sign_is_kept(backbone: Backbone, x: Tensor) -> None:
    asked: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        asked.append(arguments[0])

    hook = backbone.pipeline.transformer.t_embedder.register_forward_pre_hook(note)
    conditioning = backbone.encode_prompts(CAPTIONS)
    there, mirrored = (backbone.velocity(x, t, t, conditioning) for t in (TIMES, -TIMES))
    hook.remove()
    assert torch.allclose(asked[0], TIME_SCALE * torch.tensor([0.1, 0.7]))
    assert torch.allclose(asked[1], TIME_SCALE * torch.tensor([1.9, 1.3]))
    assert sign_sensitivity(there, mirrored) > 0.1


@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(backbone: Backbone, x: Tensor) -> None:
    padded = backbone.encode_prompts(CAPTIONS)
    assert padded.mask is not None
    lengths = padded.mask.sum(dim=1).tolist()
    assert lengths[0] < lengths[1] == padded.prompt_embeds.shape[1]
    spoilt = torch.where(padded.mask[:, :, None], padded.prompt_embeds, torch.full((), 7.0))
    longer = torch.cat([spoilt, torch.ones_like(spoilt)], dim=1)
    mask = torch.cat([padded.mask, torch.zeros_like(padded.mask)], dim=1)
    clean, dirty = (
        backbone.velocity(x, TIMES, TIMES, conditioning)
        for conditioning in (padded, Conditioning(longer, mask=mask))
    )
    assert torch.equal(clean, dirty)


def test_encoding_leaves_the_callers_prompts_alone(backbone: Backbone) -> None:
    prompts = list(CAPTIONS)
    backbone.encode_prompts(prompts)
    assert prompts == CAPTIONS


def test_captions_are_cut_with_their_chat_counted(backbone: Backbone) -> None:
    long = "red " * MAX_TOKENS
    assert backbone.encode_prompts([long]).prompt_embeds.shape[1] == MAX_TOKENS == backbone.max_tokens
    chat = backbone.encode_prompts([""]).prompt_embeds.shape[1]
    fits = "a" + " red" * (MAX_TOKENS - chat - 1)
    assert backbone.encode_prompts([fits]).prompt_embeds.shape[1] == MAX_TOKENS
    assert backbone.too_long([fits, fits + " red", long]) == 2
