"""A loaded pipeline with what the stages need of it, whatever its family."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.modules import load_modules
from twinflow_core.backbones.packing import PATCH
from twinflow_core.backbones.plain_folder import read_index
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.errors import TwinflowError
from twinflow_core.flow.targets import guided

SIDECAR = Path("target_time") / "target_time.safetensors"


class Backbone(ABC):
    """What differs between families is in their subclasses: how to call, encode and decode.

    Attributes:
        family: the family's short name.
        pipeline_type: its class of diffusers.
        velocity_type: its transformer behind the common calling convention.
        optional_parts: parts of that pipeline that a folder may leave out.
        pipeline: the loaded pipeline.
        velocity: its transformer.
        height: of the images, in pixels; the side of the model's own square ones unless `at_size` was called.
        width: the same across.
    """

    family: ClassVar[str]
    pipeline_type: ClassVar[Any]
    velocity_type: ClassVar[Any]
    optional_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.velocity: Velocity = self.velocity_type(pipeline.transformer)
        self.height = self.width = self.native_resolution

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a diffusers folder in float32; the target-time sidecar too where there is one."""
        index = read_index(folder)
        absent = {name: None for name in cls.optional_parts if index.get(name, [None])[0] is None}
        pipeline = cls.pipeline_type.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **load_modules(folder), **absent
        )
        pipeline.set_progress_bar_config(disable=True)
        backbone = cls(pipeline)
        if (folder / SIDECAR).exists():
            backbone.velocity.target_time.load_state_dict(load_file(folder / SIDECAR))
        return backbone

    def save(self, folder: Path) -> None:
        """Write a stock diffusers folder, and beside it the sidecar that few-step sampling does not need."""
        self.pipeline.save_pretrained(folder)
        for path in folder.rglob("*.json"):
            _forget_where_it_came_from(path)
        (folder / SIDECAR).parent.mkdir()
        save_file(self.velocity.target_time.state_dict(), folder / SIDECAR)

    @property
    def latent_channels(self) -> int:
        """C of the latents, not packed."""
        return self.pipeline.transformer.config.in_channels

    @property
    def native_resolution(self) -> int:
        """Side of the square images that the model is meant for, in pixels."""
        return self.pipeline.vae.config.sample_size

    @property
    def size_multiple(self) -> int:
        """What both sides of an image must be multiples of, in pixels: a token's side."""
        return self.pipeline.vae_scale_factor * PATCH

    @property
    def longest_side(self) -> int | None:
        """The longest side that the model has positions for, in pixels; None where it computes them."""
        return None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image's latents, not packed."""
        scale = self.pipeline.vae_scale_factor
        return (self.latent_channels, self.height // scale, self.width // scale)

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return (self.height // self.size_multiple) * (self.width // self.size_multiple)

    def at_size(self, height: int, width: int, key: str = "data.resolution") -> None:
        """Make images of this size from now on; refuses what `require_size` refuses."""
        self.require_size(height, width, key)
        self.height, self.width = height, width

    def require_size(self, height: int, width: int, key: str) -> None:
        """Refuse a size that the model does not make.

        Args:
            height: in pixels.
            width: in pixels.
            key: which of params.yaml's asks for it.

        Raises:
            TwinflowError: a side is no multiple of `size_multiple`, or longer than `longest_side`.
        """
        multiple, longest, asked = self.size_multiple, self.longest_side, f"{width}x{height}"
        own = f"{self.native_resolution}x{self.native_resolution}"
        if height % multiple or width % multiple:
            raise TwinflowError(
                f"The base model makes images whose sides are multiples of {multiple} pixels, not {asked}.",
                where=f"params.yaml: {key}",
                fix=f"Choose such sides; the model's own size is {own}.",
            )
        if longest is not None and max(height, width) > longest:
            raise TwinflowError(
                f"The base model has positions for sides of at most {longest} pixels, not for {asked}.",
                where=f"params.yaml: {key}",
                fix=f"Choose shorter sides; the model's own size is {own}.",
            )

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Embeddings of the prompts through the pipeline's own text encoders, which cut what is too long.

        The empty prompt is what guidance is measured against: it gives what the family's own pipeline takes
        where nothing is unwanted. Families whose lengths differ pad on the right to the batch's longest prompt
        and tell it in the mask.
        """

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Tokens of a prompt that the text encoder reads."""

    def token_counts(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt before any is cut, counted as `max_tokens` is."""
        return [len(ids) for ids in self.pipeline.tokenizer(prompts).input_ids]

    def too_long(self, prompts: list[str]) -> int:
        """How many prompts have more tokens than the text encoder reads."""
        return sum(count > self.max_tokens for count in self.token_counts(prompts))

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Normalised latents (mode of the posterior) of images [B, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of normalised latents."""

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """The velocity [B, C, H, W] that the family's own pipeline makes of both at a guidance scale."""
        return guided(conditional, unconditional, scale)

    @property
    def guidance_built_in(self) -> bool:
        """Whether the model was distilled with guidance: that of two velocities would add it a second time."""
        return False

    def many_step_guidance(self, scale: float) -> float:
        """The scale that many steps take in answer to the one asked for; 1 where guidance is distilled in."""
        return 1.0 if self.guidance_built_in else scale

    def many_step_scheduler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        """Euler steps at the times that the model is sampled at, set for `steps`; timesteps are 1000 t."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps, device=device)
        return scheduler


def _forget_where_it_came_from(path: Path) -> None:
    """Drop the folder that diffusers notes in every config it loads: the same weights must give the same bytes."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(document, dict) and document.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
