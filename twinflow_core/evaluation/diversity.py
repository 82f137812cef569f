"""How different the images of one prompt are from each other.

The paper's App. D.1 with pixels in place of LPIPS (no network is downloaded here): per prompt the mean
distance of all pairs, then the mean over prompts. Where correctness is known only correct images count, since
noise is not diversity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from twinflow_core.evaluation.samples import Sample


def pixel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of two uint8 images of one size, in [0, 1]."""
    return float(np.sqrt(np.mean(np.square((a.astype(np.float64) - b) / 255))))


def diversity(samples: Sequence[Sample]) -> float:
    """Mean over prompts of the mean pairwise distance of the prompt's images, in [0, 1].

    Args:
        samples: images of one model and setting.

    Returns:
        NaN if no prompt has two images that count, which no gate lets pass.
    """
    by_prompt: dict[str, list[np.ndarray]] = defaultdict(list)
    for sample in samples:
        if np.isnan(sample.correct) or sample.correct == 1:
            by_prompt[sample.prompt_id].append(sample.pixels)
    means = [
        np.mean([pixel_distance(a, b) for a, b in combinations(images, 2)])
        for images in by_prompt.values()
        if len(images) > 1
    ]
    return float(np.mean(means)) if means else float("nan")
