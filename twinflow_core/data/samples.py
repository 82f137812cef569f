"""One row of any source, before its image is looked at, and the rules that all sources share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from twinflow_core.data.rejections import Reason, Rejection

# A member's declared size is not to be trusted with memory.
MOST_TEXT_BYTES = 16 * 2**20
# The widest pixels that are read, 16 bits of four channels: no usable image takes more than this many bytes a pixel.
BYTES_A_PIXEL = 8
HEADER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a source.

    Args:
        file_name: where it came from, unlike any other row's; with `/` between the parts.
        image: the encoded bytes, or None where the row is rejected already.
        caption: with its outer and repeated white space removed.
        metadata: the row's other columns as a JSON object with sorted keys, or "".
        rejection: why the row is unusable, where that shows without opening the image.
    """

    file_name: str
    image: bytes | None
    caption: str
    metadata: str = ""
    rejection: Rejection | None = None


@dataclass(frozen=True)
class Columns:
    """Where a packed source keeps image and caption; None means the first of the usual names that is there."""

    image: str | None = None
    caption: str | None = None


IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
CAPTION_NAMES = ("text", "caption", "prompt", "txt")


def checked_sample(
    name: str, image: bytes | None, text: object, metadata: dict[str, Any], rejection: Rejection | None = None
) -> Sample:
    """A sample whose caption and metadata can be stored, or one with the reason why not."""
    if rejection is None and text is not None and not _is_text(text):
        rejection = Rejection(Reason.UNREADABLE_CAPTION, "it is not a text")
    caption = " ".join(text.split()) if isinstance(text, str) and _is_text(text) else ""
    if rejection is None and not caption:
        rejection = Rejection(Reason.NO_CAPTION)
    described = json.dumps(metadata, sort_keys=True) if metadata else ""
    return Sample(printable(name), None if rejection else image, caption, described, rejection)


def most_image_bytes(max_pixels: int) -> int:
    """More bytes than this cannot be an image of so few pixels."""
    return BYTES_A_PIXEL * max_pixels + HEADER_BYTES


def printable(name: str) -> str:
    """A name as valid Unicode; what cannot be written is spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def refuse_constant(name: str) -> NoReturn:
    """For `json.loads`: NaN and the infinities are no JSON."""
    raise ValueError(f"{name} is no JSON value")


def _is_text(text: object) -> bool:
    """Whether it is a text that can be stored; half of a surrogate pair cannot."""
    return isinstance(text, str) and printable(text) == text
