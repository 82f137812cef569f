"""How close generated images are to held-out ones as distributions, for data that no detector can judge.

    H = (2 E|X - Y| - E|X - X'| - E|Y - Y'|) / 2 E|X - Y|,    score = 1 - sqrt(H)

with generated X, held-out Y and Euclidean distance of features: the energy coefficient of inhomogeneity
(Szekely and Rizzo, Energy statistics, 2013), which lies in [0, 1] and is zero for equal distributions alone.
The features are pixels at several scales; a network of one's own choosing would see more, and none is needed.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

SCALES = (4, 8, 16)


def features(images: np.ndarray) -> np.ndarray:
    """Area means at 4, 8 and 16 pixels a side, each scale with equal weight.

    Args:
        images: uint8 [N, H, W, 3] with sides that 16 divides.

    Returns:
        float64 [N, D].

    Raises:
        ValueError: a side is not a multiple of 16.
    """
    count, height, width, _ = images.shape
    if height % max(SCALES) or width % max(SCALES):
        raise ValueError(f"image sides must be multiples of {max(SCALES)}, not {height}x{width}")
    parts = []
    for side in SCALES:
        blocks = images.reshape(count, side, height // side, side, width // side, 3) / 255.0
        parts.append(blocks.mean(axis=(2, 4)).reshape(count, -1) / side)
    return np.concatenate(parts, axis=1)


def distribution_score(generated: np.ndarray, real: np.ndarray) -> float:
    """1 - sqrt(H) of two image sets, in [0, 1]; higher is closer.

    Args:
        generated: uint8 [N, H, W, 3].
        real: uint8 [M, H, W, 3].
    """
    x, y = features(generated), features(real)
    between = cdist(x, y).mean()
    if between == 0:
        return 1.0
    within = _mean_distance(x) + _mean_distance(y)
    return float(1 - np.sqrt(np.clip((2 * between - within) / (2 * between), 0, 1)))


def _mean_distance(rows: np.ndarray) -> float:
    """Mean distance of two different rows (the unbiased form); 0 for a single row."""
    count = len(rows)
    return float(cdist(rows, rows).sum() / (count * (count - 1))) if count > 1 else 0.0
