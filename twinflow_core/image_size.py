"""The size of an image as users write it, `WIDTHxHEIGHT`, and the bucket that an image belongs to."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_WRITTEN = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


class ImageSize(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def area(self) -> int:
        """Pixels."""
        return self.width * self.height

    @classmethod
    def read(cls, written: object) -> ImageSize:
        """The size that `WIDTHxHEIGHT` names; a size is taken as it is.

        Raises:
            ValueError: something else is written.
        """
        if isinstance(written, ImageSize):
            return written
        found = _WRITTEN.fullmatch(written) if isinstance(written, str) else None
        if found is None:
            raise ValueError(f"{written!r} is no size: write WIDTHxHEIGHT in pixels, as 1024x768")
        return cls(int(found[1]), int(found[2]))


def nearest_shape(buckets: Sequence[ImageSize], image: ImageSize) -> ImageSize:
    """The bucket whose ratio of width to height is nearest, as a factor; of two that are equally near the first.

    Args:
        buckets: at least one.
        image: of any size.
    """

    def distance(bucket: ImageSize) -> float:
        return abs(math.log(image.width * bucket.height) - math.log(image.height * bucket.width))

    return min(buckets, key=distance)
