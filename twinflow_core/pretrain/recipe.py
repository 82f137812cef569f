"""The recipe of a base: every number that decides how it is trained, typed and checked."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.yaml_files import UnreadableYamlError, read_yaml


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VaeRecipe(_Strict):
    """The autoencoder: 32x32 RGB to 8x8 latents and back."""

    channels: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = Field(4, ge=1)
    images: int = Field(24_000, ge=1, description="pictures rendered to train on")
    steps: int = Field(2500, ge=1)
    batch: int = Field(64, ge=1)
    lr: float = Field(2e-3, gt=0)
    kl: float = Field(1e-3, ge=0, description="weight of the mean KL a latent element")
    latent_noise: float = Field(
        0.15, ge=0, description="most noise, in latent deviations, the decoder must bear"
    )


class TextRecipe(_Strict):
    """The tokenizer and the two text encoders, trained on text alone."""

    max_length: int = Field(12, ge=8, description="tokens of a caption, start and end included")
    width: int = Field(64, ge=8)
    heads: int = Field(4, ge=1)
    layers: tuple[int, int] = (2, 3)
    steps: int = Field(1500, ge=1)
    batch: int = Field(128, ge=1)
    lr: float = Field(2e-3, gt=0)


class FlowRecipe(_Strict):
    """The denoiser and its flow-matching pretraining."""

    layers: int = Field(12, ge=1)
    heads: int = Field(4, ge=1)
    head_width: int = Field(28, ge=8)
    patch: int = Field(2, ge=1)
    images: int = Field(40_000, ge=1, description="pictures rendered and encoded once")
    task_weights: tuple[float, ...] = Field(
        (0.07, 0.12, 0.2, 0.13, 0.22, 0.26), description="share of each of the six tasks, in their order"
    )
    steps: int = Field(5_400, ge=1, description="length of the whole run, decay included")
    decay: int = Field(1500, ge=0, description="last steps, over which the rates fall to zero")
    warmup: int = Field(100, ge=0)
    batch: int = Field(64, ge=4)
    muon_lr: float = Field(0.01, ge=0, description="rate of the hidden matrices; 0: AdamW trains them too")
    adam_lr: float = Field(1e-3, gt=0, description="rate of everything else")
    weight_decay: float = Field(0.01, ge=0)
    ema: float = Field(0.999, gt=0, lt=1)
    caption_dropout: float = Field(0.1, ge=0, le=1)
    time_shift: float = Field(
        1.8, gt=0, description="times are s u / (1 + (s - 1) u), u uniform; above 1: noisier"
    )
    layout_weight: float = Field(
        0.1, ge=0, description="weight of the layout loss on inner features; 0: none"
    )
    layout_block: int = Field(6, ge=0, description="block whose image features the layout is read from")
    guidance: float = Field(2.5, ge=1, description="scale the score is measured at")
    shift: float = Field(1.0, gt=0, description="time shift of the sampler; above 1: more steps near noise")
    score_every: int = Field(1500, ge=1)
    save_every: int = Field(500, ge=1)


class Recipe(_Strict):
    """One base from scratch. The same recipe on the same machine gives the same weights."""

    seed: int = 0
    vae: VaeRecipe = VaeRecipe()
    text: TextRecipe = TextRecipe()
    flow: FlowRecipe = FlowRecipe()


def load_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file; what the file leaves out keeps its default.

    Raises:
        TwinflowError: no such file, or a key or value that a recipe does not have.
    """
    if not path.is_file():
        raise TwinflowError("no such recipe", where=str(path), fix="name a YAML file with a recipe in it")
    try:
        return Recipe.model_validate(read_yaml(path) or {})
    except (ValidationError, UnreadableYamlError) as error:
        raise TwinflowError(
            f"the recipe is not valid: {error}", where=str(path), fix="correct the key"
        ) from error
