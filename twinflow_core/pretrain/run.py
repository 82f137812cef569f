"""A base from scratch: autoencoder, text encoders, denoiser, score, record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL, SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from twinflow_core.data.shapes_render import render_dataset
from twinflow_core.errors import TwinflowError
from twinflow_core.pretrain.flow import FlowTrainer
from twinflow_core.pretrain.flow_data import build_data
from twinflow_core.pretrain.pipeline import assemble, load_base, save_base
from twinflow_core.pretrain.recipe import Recipe
from twinflow_core.pretrain.score import score_base
from twinflow_core.pretrain.text import train_encoder
from twinflow_core.pretrain.tokenizer import build_tokenizer
from twinflow_core.pretrain.vae import train_vae

Progress = Callable[[str], None]
_VAE_SEED, _MILESTONE_STEPS, _MILESTONE_PROMPTS = 1, 20, 16


@dataclass(frozen=True)
class ScoreSetting:
    """What the recorded score is measured with: prompts of each task, steps, pictures of each prompt."""

    prompts: int = 60
    steps: int = 50
    each: int = 4


SCORE = ScoreSetting()


@dataclass(frozen=True)
class Frozen:
    """The parts that are done before the denoiser starts."""

    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    encoders: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]


def pretrain(
    recipe: Recipe,
    out_dir: Path,
    progress: Progress,
    work_dir: Path | None = None,
    warm_start: Path | None = None,
) -> dict[str, Any]:
    """Train a base and write it as a diffusers folder with its `recipe.json`.

    What is half done is kept in `work_dir`; the same call goes on from there, with the same draws.

    Args:
        recipe: every number.
        out_dir: the base's folder.
        progress: told a line now and then.
        work_dir: outside the output, `<out_dir>.work` unless given.
        warm_start: an earlier base whose autoencoder, text encoders and denoiser to go on from.

    Returns:
        What `recipe.json` says: the recipe, steps, loss, seconds and scores.

    Raises:
        TwinflowError: the work folder lies inside the output.
    """
    work = work_dir or out_dir.with_name(f"{out_dir.name}.work")
    if work.resolve().is_relative_to(out_dir.resolve()):
        raise TwinflowError("the work folder lies inside the output", where=str(work), fix="put it elsewhere")
    work.mkdir(parents=True, exist_ok=True)
    frozen = _frozen_parts(recipe, work, warm_start, progress)
    progress("encoding pictures")
    data = build_data(recipe.flow, frozen.vae, frozen.tokenizer, frozen.encoders, recipe.seed)
    trainer = FlowTrainer(recipe.flow, data, recipe.seed)
    checkpoint = work / "flow.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        progress(f"going on from step {trainer.step}")
    elif warm_start:
        trainer.warm_start(load_base(warm_start).transformer)

    def milestone(model: SD3Transformer2DModel, step: int) -> None:
        pipeline = assemble(frozen.vae, frozen.tokenizer, frozen.encoders, model, recipe.flow.shift)
        save_base(pipeline, out_dir)
        score = score_base(pipeline, _MILESTONE_PROMPTS, _MILESTONE_STEPS, recipe.flow.guidance)
        progress(f"step {step} score {score.all.overall:.3f} {score.all.tasks}")

    trainer.run(checkpoint, progress, milestone)
    record = make_record(recipe, out_dir, trainer)
    (out_dir / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def make_record(recipe: Recipe, base: Path, trainer: FlowTrainer) -> dict[str, Any]:
    """What `recipe.json` says of a finished base, its scores measured on the folder as it was written."""
    recent = np.asarray([error for _, error, _ in trainer.losses[-100:]])
    score = score_base(load_base(base), SCORE.prompts, SCORE.steps, recipe.flow.guidance, SCORE.each)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "steps": trainer.step,
        "seconds": round(trainer.seconds),
        "machine": f"{os.cpu_count()} CPU cores",
        "velocity_error": round(float(recent.mean()), 4) if len(recent) else None,
        "sampler": {"steps": SCORE.steps, "guidance": recipe.flow.guidance, "shift": recipe.flow.shift},
        "score": score.as_dict(),
    }


def _frozen_parts(recipe: Recipe, work: Path, warm_start: Path | None, progress: Progress) -> Frozen:
    """The autoencoder and the text encoders: from an earlier base, from the work folder, or trained now."""
    if warm_start:
        base = load_base(warm_start)
        return Frozen(base.vae, base.tokenizer, (base.text_encoder, base.text_encoder_2))
    began = time.monotonic()
    tokenizer = build_tokenizer(recipe.text.max_length)
    vae_folder = work / "vae"
    if not vae_folder.exists():
        pictures = np.stack([image for image, _, _ in render_dataset(recipe.vae.images, _VAE_SEED)])
        train_vae(recipe.vae, pictures, recipe.seed, progress).save_pretrained(vae_folder)
    encoders = []
    for index, layers in enumerate(recipe.text.layers):
        folder = work / f"text_{index}"
        if not folder.exists():
            train_encoder(tokenizer, recipe.text, layers, recipe.seed + index, progress).save_pretrained(
                folder
            )
        encoders.append(CLIPTextModelWithProjection.from_pretrained(folder, use_safetensors=True).eval())
    progress(f"autoencoder and text encoders ready after {time.monotonic() - began:.0f}s")
    vae = AutoencoderKL.from_pretrained(vae_folder, use_safetensors=True).eval().requires_grad_(False)
    return Frozen(vae, tokenizer, (encoders[0], encoders[1]))
