"""Which rows are held out for validation: decided by the image's content, never by its place in a list."""

from __future__ import annotations

from typing import Literal, get_args

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(sha256: str, validation: float) -> Split:
    """The split of an image that is not a near duplicate of another.

    Adding or removing images moves none, and raising `validation` only moves images into it.

    Args:
        sha256: the encoded image's SHA-256, in hexadecimal.
        validation: the share of images to hold out, in (0, 1).
    """
    position = int(sha256[:16], 16) / 2**64
    return "validation" if position < validation else "train"
