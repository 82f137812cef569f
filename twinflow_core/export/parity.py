"""Does the package draw what torch draws? From prompt to pixels, through the runtime that will serve it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.noise import image_noise
from twinflow_core.runtime.loaded_package import LoadedPackage, PromptEmbeddings
from twinflow_core.sampling.few_step import sample_few_steps

SEEDS = (0, 1, 2)
# A plain caption, nothing, what no vocabulary holds, and more than any context takes.
PROMPTS = ("a red circle above a blue square", "", "ein größerer Stern ☆ 星", "word " * 600)
BATCHES = (1, 3)
# Beyond it two images in float32 count as equal; an infinite PSNR is no JSON.
HIGHEST_PSNR = 200

Array = NDArray[np.float32]


def measure_parity(backbone: Backbone, generator: LoadedPackage) -> dict[str, float | int]:
    """Compare images of all generators, at all sizes, with torch's, on random and on all-zero noise, at batch 1 and 3.

    Args:
        backbone: the model in torch, float32, on the CPU.
        generator: the package made of it.

    Returns:
        max_abs: the largest difference of two values of images in [0, 1]; rounded up to one digit, as the
            digits below hang on the processor. A value that is not finite differs by the whole range.
        psnr: of the worst batch, in dB; rounded down to whole dB and at most HIGHEST_PSNR.
        finite: 1 if every value that the package gave is finite, else 0.
    """
    differences: list[Array] = []
    finite = True

    @cache
    def encoded(prompts: tuple[str, ...]) -> tuple[Conditioning, PromptEmbeddings]:
        return backbone.encode_prompts(list(prompts)), generator.encode(prompts)

    with _one_thread(), _without_warnings():
        for size, steps in product(generator.manifest.size_names, generator.manifest.nfe):
            for noises, prompts in _cases(steps, generator.manifest.at(size).latent_shape):
                conditioning, embeddings = encoded(prompts)
                served = generator.render(noises, embeddings)
                usable = np.isfinite(served)
                finite = finite and bool(usable.all())
                difference = np.abs(served - _torch_images(backbone, noises, conditioning))
                differences.append(np.where(usable, difference, 1.0))
    worst = max(float(np.mean(np.square(each, dtype=np.float64))) for each in differences)
    return {
        "max_abs": round_up(max(float(each.max()) for each in differences)),
        "psnr": min(HIGHEST_PSNR, math.floor(-10 * math.log10(worst))) if worst > 0 else HIGHEST_PSNR,
        "finite": int(finite),
    }


def round_up(value: float) -> float:
    """The smallest number with one significant digit that is not below the value: 1.7e-6 to 2e-6."""
    if value == 0:
        return 0.0
    digit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / digit) * digit:.0e}")


def _cases(steps: int, shape: tuple[int, int, int]) -> Iterator[tuple[Array, tuple[str, ...]]]:
    for batch in BATCHES:
        rotated = [tuple(PROMPTS[(seed + row) % len(PROMPTS)] for row in range(batch)) for seed in SEEDS]
        for seed, prompts in zip(SEEDS, rotated, strict=True):
            yield np.stack([image_noise(seed, str(row), steps, shape) for row in range(batch)]), prompts
        yield np.zeros((batch, steps, *shape), np.float32), rotated[0]


def _torch_images(backbone: Backbone, noises: Array, conditioning: Conditioning) -> Array:
    """What evaluation draws: float32 [N, 3, H, W] in [0, 1]."""
    latents = sample_few_steps(
        lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning),
        torch.from_numpy(noises.swapaxes(0, 1).copy()),
    )
    return backbone.decode_latents(latents).numpy()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums split over threads round differently from one machine to the next."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The pipeline warns of every text that it cuts; here one is cut on purpose."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
