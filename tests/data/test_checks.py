"""One reason an unusable image; a decompression bomb costs nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.source_folders import decompression_bomb, encoded, picture
from twinflow_core.data.checks import check_image
from twinflow_core.data.rejections import Reason, Rejection

MIN_SIDE, MAX_PIXELS = 16, 40_000_000


def _reason(content: bytes) -> Reason | None:
    result = check_image(content, MIN_SIDE, MAX_PIXELS)
    return result.reason if isinstance(result, Rejection) else None


def test_a_good_image_is_decoded() -> None:
    pixels = check_image(encoded(picture(0)), MIN_SIDE, MAX_PIXELS)
    assert isinstance(pixels, np.ndarray)
    assert np.array_equal(pixels, np.asarray(picture(0)))


@pytest.mark.parametrize(
    ("width", "height", "rows"), [(7000, 6000, 6000), (15_000, 14_000, 14_000), (2**31 - 1, 2**31 - 1, 0)]
)
def test_a_decompression_bomb_is_known_by_its_header(width: int, height: int, rows: int) -> None:
    content = decompression_bomb(width, height, rows)
    assert len(content) < 40_000
    tracemalloc.start()
    assert _reason(content) == Reason.TOO_MANY_PIXELS
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_reasons() -> None:
    floats = Image.fromarray(np.ones((20, 20), dtype=np.float32))
    assert _reason(encoded(picture(0, (15, 400)))) == Reason.TOO_SMALL
    assert _reason(encoded(picture(0, (16, 16)))) is None
    assert _reason(encoded(picture(0))[:-20]) == Reason.DAMAGED
    assert _reason(encoded(picture(0), "JPEG")[:-20]) == Reason.DAMAGED
    assert _reason(b"") == Reason.DAMAGED
    assert _reason(b"<svg/>") == Reason.DAMAGED
    assert _reason(encoded(floats, "TIFF")) == Reason.UNSUPPORTED_FORMAT
