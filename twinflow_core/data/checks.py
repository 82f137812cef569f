"""Whether one image can be used: header first, pixels after, one reason when it cannot."""

from __future__ import annotations

from twinflow_core.data.decode import (
    DamagedImageError,
    Pixels,
    TooManyPixelsError,
    UnsupportedImageError,
    decode_rgb,
    image_size,
)
from twinflow_core.data.rejections import Reason, Rejection


def check_image(content: bytes, min_side: int, max_pixels: int) -> Pixels | Rejection:
    """Decode an image if it is usable.

    Args:
        content: the encoded file.
        min_side: the least width and height allowed.
        max_pixels: the most pixels allowed, compared with the header before anything is decoded, so that a
            decompression bomb costs nothing.

    Returns:
        uint8 [H, W, 3] RGB, or why the image is unusable.
    """
    try:
        width, height = image_size(content)
        if width * height > max_pixels:
            return Rejection(Reason.TOO_MANY_PIXELS, f"{width}x{height}, at most {max_pixels} pixels")
        if min(width, height) < min_side:
            return Rejection(Reason.TOO_SMALL, f"{width}x{height}, at least {min_side} a side")
        return decode_rgb(content)
    except TooManyPixelsError as error:
        return Rejection(Reason.TOO_MANY_PIXELS, str(error))
    except UnsupportedImageError as error:
        return Rejection(Reason.UNSUPPORTED_FORMAT, str(error))
    except DamagedImageError as error:
        return Rejection(Reason.DAMAGED, str(error))
