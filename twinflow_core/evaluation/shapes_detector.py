"""Finding the shapes world's objects by rule: ground, regions, colour, shape. No network, no randomness.

A region's colour is the palette's nearest to its median in Lab; its shape is the template with the best overlap
of coverages, and that overlap is the score, so that GenEval's thresholds of 0.3 and 0.9 keep a meaning: a blurred
or deformed shape is still found, and no longer counted.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from twinflow_core.data.shapes_render import coverage
from twinflow_core.data.shapes_world import BACKGROUND, COLORS, PALETTE, SHAPES
from twinflow_core.evaluation.detections import Detection

# Lab distance from the ground at which a pixel belongs to an object: above the noise of a VAE, below half of the
# ground's distance to the palest colour.
GROUND_DISTANCE = 18.0
# A pixel this near to a palette colour is of that colour; an antialiased rim is of none.
COLOR_DISTANCE = 16.0
# Fewer pixels than this are a speck; the smallest shape of the world, a triangle of side 9, has about 40.
LEAST_AREA = 16
# A region whose second colour has this share of its coloured pixels is two objects that touch.
SECOND_COLOR = 0.15
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def _lab(colors: list[tuple[int, int, int]]) -> np.ndarray:
    return rgb2lab(np.asarray(colors, dtype=np.float64)[None] / 255)[0]


class ShapesDetector:
    """A detector for pictures of the shapes world (see `Detector`)."""

    def __init__(self) -> None:
        self._palette = _lab([PALETTE[color] for color in COLORS])
        self._ground = _lab([BACKGROUND])[0]

    def detect(self, image: np.ndarray) -> list[Detection]:
        """All objects of a picture, uint8 [H, W, 3]."""
        lab = rgb2lab(image)
        foreground = np.linalg.norm(lab - self._ground, axis=2) > GROUND_DISTANCE
        regions, count = ndimage.label(foreground, structure=_NEIGHBOURS)
        found = []
        for region in range(1, count + 1):
            for mask in self._objects(lab, regions == region):
                if mask.sum() >= LEAST_AREA:
                    found.append(self._describe(image, lab, mask))
        return found

    def _objects(self, lab: np.ndarray, region: np.ndarray) -> list[np.ndarray]:
        """The region itself, or its parts of one colour if objects of several colours touch."""
        distances = np.linalg.norm(lab[:, :, None] - self._palette, axis=3)
        colored = region & (distances.min(axis=2) < COLOR_DISTANCE)
        nearest = distances.argmin(axis=2)
        areas = np.bincount(nearest[colored], minlength=len(COLORS))
        strong = [c for c in np.flatnonzero(areas) if areas[c] > SECOND_COLOR * areas.sum()]
        if len(strong) < 2:
            return [region]
        parts = []
        for color in strong:
            labels, count = ndimage.label(colored & (nearest == color), structure=_NEIGHBOURS)
            parts += [labels == label for label in range(1, count + 1)]
        return parts

    def _describe(self, image: np.ndarray, lab: np.ndarray, mask: np.ndarray) -> Detection:
        core = mask & ndimage.binary_erosion(mask, border_value=1)
        inside = core if core.any() else mask
        color = COLORS[int(np.linalg.norm(self._palette - np.median(lab[inside], axis=0), axis=1).argmin())]
        alpha = _alpha(image, mask, np.median(image[inside].astype(np.float64), axis=0))
        shape, score, box = _best_template(alpha, mask)
        return Detection(shape, score, box, mask, color)


def _alpha(image: np.ndarray, mask: np.ndarray, color: np.ndarray) -> np.ndarray:
    """How much of each pixel the object covers, [H, W] in [0, 1]: its place between ground and object colour."""
    ground = np.asarray(BACKGROUND, dtype=np.float64)
    direction = color - ground
    share = (image - ground) @ direction / max(float(direction @ direction), 1.0)
    near = ndimage.binary_dilation(mask, structure=_NEIGHBOURS)
    return np.where(near, np.clip(share, 0, 1), 0.0)


def _best_template(alpha: np.ndarray, mask: np.ndarray) -> tuple[str, float, tuple[float, float, float, float]]:
    """Shape, overlap and box of the template that overlaps best: sum of minima over sum of maxima."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    side = max(int(rows[-1]) - top, int(columns[-1]) - left) + 1
    padded = np.pad(alpha, side + 2)
    best: tuple[str, float, tuple[float, float, float, float]] = (SHAPES[0], 0.0, (0.0, 0.0, 0.0, 0.0))
    for shape, size, dy, dx in product(SHAPES, range(max(2, side - 1), side + 2), (-1, 0, 1), (-1, 0, 1)):
        template = coverage(shape, size)
        y, x = top + dy, left + dx
        window = padded[y + side + 2 : y + side + 2 + size, x + side + 2 : x + side + 2 + size]
        shared = float(np.minimum(window, template).sum())
        overlap = shared / (float(alpha.sum()) + float(template.sum()) - shared)
        if overlap > best[1]:
            best = (shape, overlap, (float(x), float(y), float(x + size), float(y + size)))
    return best
