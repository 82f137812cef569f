"""From encoded bytes to pixels: the one way that every part of the project opens an image."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# Their range of values is whatever the program that wrote them meant, so there is no right way to show them.
_UNBOUNDED_MODES = frozenset({"I", "F"})

# A message that names a Python object by its address would differ from run to run.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class DamagedImageError(ValueError):
    """The bytes are not an image, or not all of one."""


class UnsupportedImageError(ValueError):
    """The bytes are an image of a kind that is not read."""


class TooManyPixelsError(ValueError):
    """The header declares more pixels than are allowed; nothing was decoded."""


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height that the header declares, before any rotation; decodes no pixel.

    Raises:
        DamagedImageError: no known image header.
        TooManyPixelsError: so many that Pillow itself refuses to look further.
    """
    with _opened(content) as image:
        return image.size


def decode_rgb(content: bytes) -> Pixels:
    """Decode an image completely.

    The first frame of an animation; rotated as its EXIF tag says; palettes, greys and CMYK as RGB; 16-bit
    values scaled to 8; transparency laid over white.

    Args:
        content: the encoded file.

    Returns:
        uint8 [H, W, 3], RGB, 0 to 255.

    Raises:
        DamagedImageError: not an image, or truncated, or with a wrong checksum.
        UnsupportedImageError: 32-bit integer or floating-point pixels.
    """
    with _opened(content) as image:
        if image.format == "PNG":
            # This alone checks all of a PNG's checksums and its end; it leaves the image unusable.
            image.verify()
    with _opened(content) as image:
        image.load()
        if image.mode in _UNBOUNDED_MODES:
            raise UnsupportedImageError(f"pixels of mode {image.mode}, whose range is not known")
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return np.repeat(np.rint(np.asarray(upright) / 257.0).astype(np.uint8)[..., None], 3, axis=2)
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.asarray(upright.convert("RGB"))


def fit(image: Pixels, width: int, height: int) -> Pixels:
    """Crop to the largest centred part of the shape wanted and resize it, antialiased (Lanczos).

    Args:
        image: uint8 [H, W, 3].
        width: wanted, in pixels.
        height: wanted, in pixels.

    Returns:
        uint8 [height, width, 3]; an image that has this size already is returned unchanged.
    """
    size = (width, height)
    return np.asarray(ImageOps.fit(Image.fromarray(image), size, method=Image.Resampling.LANCZOS))


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """A lazily opened image; whatever Pillow raises inside becomes one of this file's errors."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            yield image
    except Image.DecompressionBombError:
        raise TooManyPixelsError(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0)}") from None
    except UnsupportedImageError:
        raise
    except UnidentifiedImageError:
        raise DamagedImageError("no image header") from None
    except MemoryError:
        raise
    # Decoders meet hostile bytes with any exception at all: struct.error, SyntaxError, IndexError, KeyError.
    except Exception as error:
        raise DamagedImageError(_ADDRESS.sub("", str(error)) or type(error).__name__) from error
