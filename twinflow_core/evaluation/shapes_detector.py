"""Finding the shapes world's objects by rule: what stands out from the ground, its colour, its outline.

No learning, so nothing to drift: a region's median colour names its colour (nearest in CIE Lab), and its outline,
laid over the outlines of the true shapes in the same box, names its shape. The overlap is the score, so GenEval's
thresholds of 0.3 and 0.9 keep their meaning.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from twinflow_core.data.shapes_render import coverage
from twinflow_core.data.shapes_world import BACKGROUND, COLORS, PALETTE, SHAPES
from twinflow_core.evaluation.detections import Detection

# Regions fainter than this (CIE76 difference from the ground) or smaller (pixels) are no objects.
MIN_CONTRAST = 16.0
MIN_AREA = 20
# A box this much longer than wide, or wider than long, is no drawn shape; below it the score falls in proportion.
FULL_ASPECT = 0.8
# Pixels that an outline covers by less than this from a half are its border, and left out of the overlap, as Pascal VOC
# leaves out borders: at ten pixels a shape's border is a third of it.
PARTLY = 0.35
# Pixels further than this (CIE76) from a region's median colour belong to something else that touches it.
SAME_COLOR = 20.0


@cache
def _palette_lab() -> np.ndarray:
    """The palette in Lab, [colours, 3]."""
    return rgb2lab(np.asarray([list(PALETTE.values())], dtype=np.float64) / 255)[0]


@cache
def _ground_lab() -> np.ndarray:
    return rgb2lab(np.asarray([[BACKGROUND]], dtype=np.float64) / 255)[0, 0]


@cache
def _outline(shape: str, height: int, width: int) -> np.ndarray:
    """A shape's outline stretched to a box: share of each pixel covered, [height, width]."""
    side = 8 * max(height, width)
    fine = coverage(shape, side)
    rows = np.add.reduceat(fine, np.linspace(0, side, height, endpoint=False).astype(int), axis=0)
    cells = np.add.reduceat(rows, np.linspace(0, side, width, endpoint=False).astype(int), axis=1)
    sizes = np.add.reduceat(
        np.add.reduceat(
            np.ones((side, side)), np.linspace(0, side, height, endpoint=False).astype(int), axis=0
        ),
        np.linspace(0, side, width, endpoint=False).astype(int),
        axis=1,
    )
    return cells / sizes


class ShapesDetector:
    """Detects circles, squares and triangles on the shapes world's ground."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Every region that stands out, as its best-fitting shape.

        Args:
            image: uint8 [height, width, 3] RGB.
        """
        pixels = image.astype(np.float64)
        lab = rgb2lab(pixels / 255)
        contrast = np.linalg.norm(lab - _ground_lab(), axis=2)
        labels, _ = ndimage.label(contrast > MIN_CONTRAST)
        found = [
            self._identify(pixels, lab, labels == index + 1, box)
            for index, box in enumerate(ndimage.find_objects(labels))
        ]
        return [detection for detection in found if detection is not None]

    def _identify(
        self, pixels: np.ndarray, lab: np.ndarray, region: np.ndarray, box: tuple[slice, slice]
    ) -> Detection | None:
        core = ndimage.binary_erosion(region)
        if region.sum() < MIN_AREA or not core.any():
            return None
        middle = np.median(lab[core], axis=0)
        color = int(np.argmin(np.linalg.norm(middle - _palette_lab(), axis=1)))
        purity = float(np.mean(np.linalg.norm(lab[core] - middle, axis=1) < SAME_COLOR))
        alpha = self._alpha(pixels, region, np.median(pixels[core], axis=0))
        mask = alpha > 0.5
        if mask.sum() < MIN_AREA:
            return None
        shape, overlap, box_found = self._fit(mask)
        return Detection(shape, purity * overlap, box_found, mask, COLORS[color])

    @staticmethod
    def _alpha(pixels: np.ndarray, region: np.ndarray, color: np.ndarray) -> np.ndarray:
        """How far each pixel of the region lies from the ground to the region's colour, in [0, 1]."""
        ground = np.asarray(BACKGROUND, dtype=np.float64)
        axis = color - ground
        alpha = (pixels - ground) @ axis / max(float(axis @ axis), 1e-9)
        # The faint rim of an antialiased edge lies just outside the region.
        return np.where(ndimage.binary_dilation(region), alpha.clip(0, 1), 0.0)

    @staticmethod
    def _fit(mask: np.ndarray) -> tuple[str, float, tuple[float, float, float, float]]:
        """The shape whose outline overlaps best, the overlap (border left out, less for odd boxes), the box.

        A triangle's tip covers less than half of its pixels, so up to two rows more at the top are tried as well.
        """
        rows, columns = ndimage.find_objects(mask.astype(int))[0]
        fits = []
        for top in {max(0, rows.start - more) for more in range(3)}:
            inside = mask[top : rows.stop, columns]
            height, width = inside.shape
            aspect = min(1.0, min(height / width, width / height) / FULL_ASPECT)
            box = (float(columns.start), float(top), float(columns.stop), float(rows.stop))
            for shape in SHAPES:
                outline = _outline(shape, height, width)
                told = np.abs(outline - 0.5) > PARTLY
                drawn = outline > 0.5
                overlap = (inside & drawn & told).sum() / max(1, ((inside | drawn) & told).sum())
                fits.append((float(overlap) * aspect, shape, box))
        score, shape, box = max(fits)
        return shape, score, box
