"""Stable Diffusion 3 and 3.5: MMDiT on BCHW latents, CLIP (and T5) text, velocity z - x, time times 1000."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.plain_folder import load_modules, read_index
from twinflow_core.backbones.target_time import TIME_SCALE, TargetTime

T5_TOKENS = 256
# Without T5 the pipeline appends this many zero states in its place. They carry nothing and cost attention.
ZERO_STATES = 1
T5_PARTS = ("text_encoder_3", "tokenizer_3")
SIDECAR = Path("target_time") / "target_time.safetensors"


class Sd3Velocity(nn.Module):
    """F(x_t, t, r) of an SD3 transformer. Copy this module, never the transformer alone: its hook is here."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        host = transformer.time_text_embed.timestep_embedder
        self.target_time = TargetTime(host)

    def forward(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        """The velocity, [B, C, H, W], in the type of x_t even where the layers run in a shorter one.

        Args:
            x_t: latents [B, C, H, W].
            t: times [B] in [-1, 1].
            r: target times [B], or None for the stock network (which equals r = 0).
            conditioning: the prompts of the B rows.
        """
        self.target_time.r = r
        return self.transformer(
            hidden_states=x_t,
            timestep=TIME_SCALE * t,
            encoder_hidden_states=conditioning.prompt_embeds,
            pooled_projections=conditioning.pooled,
            return_dict=False,
        )[0].to(x_t.dtype)

    def copy(self) -> Sd3Velocity:
        """A copy with a hook of its own and without gradients; it shares the parameters that are frozen."""
        shared: dict[int, Any] = {id(p): p for p in self.parameters() if not p.requires_grad}
        twin = copy.deepcopy(self, shared)
        return twin.requires_grad_(False).eval()

    def independent_copy(self) -> Sd3Velocity:
        """A copy that shares nothing, without gradients."""
        return copy.deepcopy(self).requires_grad_(False)


class Sd3Backbone:
    """A loaded SD3 pipeline with what the stages need of it."""

    family = "sd3"

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.velocity = Sd3Velocity(pipeline.transformer)

    @classmethod
    def load(cls, folder: Path) -> Sd3Backbone:
        """Load a diffusers folder in float32; the target-time sidecar too where there is one."""
        present = read_index(folder)
        absent = {name: None for name in T5_PARTS if present.get(name, [None])[0] is None}
        pipeline = StableDiffusion3Pipeline.from_pretrained(
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
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image's latents."""
        config = self.pipeline.transformer.config
        return (config.in_channels, config.sample_size, config.sample_size)

    @property
    def resolution(self) -> int:
        """Side of the square images, in pixels."""
        return self.pipeline.transformer.config.sample_size * self.pipeline.vae_scale_factor

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Embeddings of the prompts through the pipeline's own text encoders, which cut what is too long."""
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            device=self.pipeline.device,
            max_sequence_length=T5_TOKENS if self.pipeline.text_encoder_3 else ZERO_STATES,
        )
        return Conditioning(embeds, pooled)

    def too_long(self, prompts: list[str]) -> int:
        """How many prompts have more tokens than the first text encoder reads."""
        lengths = map(len, self.pipeline.tokenizer(prompts).input_ids)
        return sum(length > self.pipeline.tokenizer_max_length for length in lengths)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Normalised latents (mode of the posterior) of images [B, 3, H, W] in [-1, 1]."""
        vae = self.pipeline.vae
        latents = vae.encode(images).latent_dist.mode()
        return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of normalised latents."""
        vae = self.pipeline.vae
        raw = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        return (vae.decode(raw, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)


def _forget_where_it_came_from(path: Path) -> None:
    """Drop the folder that diffusers notes in every config it loads: the same weights must give the same bytes."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(document, dict) and document.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
