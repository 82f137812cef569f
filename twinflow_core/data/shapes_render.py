"""Drawing the shapes world: scene to pixels, and the bundled data set. Pure: same input, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np

from twinflow_core.data.shapes_scene import CANVAS, sample_scene
from twinflow_core.data.shapes_world import BACKGROUND, PALETTE, TASKS, Metadata, Scene, captions
from twinflow_core.errors import TwinflowError

_FINE = 16


@cache
def coverage(shape: str, size: int) -> np.ndarray:
    """How much of each pixel of a `size` x `size` box the shape covers, float64 [size, size] in [0, 1].

    Antialiased by `_FINE` x `_FINE` samples a pixel. The triangle stands on its base.

    Raises:
        TwinflowError: no such shape.
    """
    at = (np.arange(size * _FINE) + 0.5) / (size * _FINE)
    y, x = np.meshgrid(at, at, indexing="ij")
    if shape == "circle":
        inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25
    elif shape == "square":
        inside = np.ones_like(x, dtype=bool)
    elif shape == "triangle":
        inside = np.abs(x - 0.5) <= y / 2
    else:
        raise TwinflowError(f"unknown shape '{shape}'", where="shape", fix="use circle, square or triangle")
    return inside.reshape(size, _FINE, size, _FINE).mean(axis=(1, 3))


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene, uint8 [32, 32, 3] RGB."""
    image = np.tile(np.asarray(BACKGROUND, dtype=np.float64), (CANVAS, CANVAS, 1))
    for thing in scene.objects:
        alpha = coverage(thing.shape, thing.size)[..., None]
        box = image[thing.y : thing.y + thing.size, thing.x : thing.x + thing.size]
        box[...] = alpha * np.asarray(PALETTE[thing.color]) + (1 - alpha) * box
    return np.rint(image).astype(np.uint8)


def render_dataset(
    count: int, seed: int, split: Literal["train", "held_out"] = "train"
) -> Iterator[tuple[np.ndarray, str, Metadata]]:
    """Pictures with captions, the six tasks in turn; picture i depends on (seed, i) alone.

    Args:
        count: how many pictures.
        seed: which ones.
        split: `train` draws from the captions that training may use, `held_out` from the others.

    Yields:
        uint8 [32, 32, 3] RGB, the caption, and the caption's record in GenEval's schema.
    """
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        pool = captions(TASKS[index % len(TASKS)], held_out=split == "held_out")
        content, lead = pool[int(rng.integers(len(pool)))]
        yield render(sample_scene(content, rng)), content.caption(lead), content.metadata(lead)
