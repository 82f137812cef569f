"""Gaussian noise that depends on (seed, key) alone: the same in torch, in ONNX Runtime, at any batch size.

NumPy alone, so that the serving side, which has no torch, draws the very noise that evaluation drew.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def image_noise(seed: int, key: str, count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The noises that make one image.

    Args:
        seed: the user's or the evaluation's seed.
        key: what the image is, e.g. `"<prompt id>/<sample>"`.
        count: how many independent noises: one a network evaluation.
        shape: the latents' shape without batch, (C, H, W).

    Returns:
        float32 array of shape (count, *shape), standard normal. The first noises do not depend on `count`.
    """
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return generator.standard_normal((count, *shape), dtype=np.float32)
