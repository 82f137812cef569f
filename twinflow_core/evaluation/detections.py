"""What a detector says of a picture. Any detector that speaks this way can score GenEval prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Detection:
    """One found object.

    Args:
        cls: its class name.
        score: confidence in [0, 1].
        box: left, top, right, bottom in pixels; right and bottom are one past the last pixel.
        mask: bool [height, width] of the whole picture, or None.
        color: its colour name, or None when the detector does not tell.
    """

    cls: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None
    color: str | None = None


class Detector(Protocol):
    """Finds objects in a picture."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        """All objects found in a picture, uint8 [height, width, 3] RGB, in any order."""
        ...
