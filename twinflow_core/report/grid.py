"""The grid of images that shows two models side by side: same prompts, same noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

BACKGROUND = (255, 255, 255)
TITLE_COLOUR = (17, 24, 39)
CAPTION_COLOUR = (75, 85, 99)
EMPTY_COLOUR = (229, 231, 235)
TITLE_SIZE = 16
CAPTION_SIZE = 14
GAP = 4
GAP_BETWEEN_SIDES = 24
MARGIN = 16
LARGEST_TILE = 192

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class GridRow:
    """One prompt and the images that two models made of it; `left[i]` and `right[i]` share their noise.

    Every image is uint8 of shape [H, W, 3]; all images of a grid have the same size.
    """

    prompt: str
    left: list[Picture]
    right: list[Picture]


def comparison_grid(
    rows: Sequence[GridRow],
    scale: int = 3,
    titles: tuple[str, str] = ("base, many steps", "candidate, one step"),
) -> bytes:
    """Draw one line a prompt: the left images, the right images, the prompt as caption under them.

    Args:
        rows: at least one, with at least one image among them.
        scale: by how much small images are enlarged, pixel by pixel. A tile is never larger than 192 pixels;
            larger images are reduced to that.
        titles: what stands above the left and the right images.

    Returns:
        A PNG without metadata: the same bytes for the same arguments.

    Raises:
        ValueError: there is no image, or the images differ in size or are not uint8 [H, W, 3].
    """
    shape = _common_shape(rows)
    tile = _tile_size(shape, scale)
    columns = (max(len(row.left) for row in rows), max(len(row.right) for row in rows))
    starts, width = _columns(columns, tile[0])
    title_font, caption_font = ImageFont.load_default(TITLE_SIZE), ImageFont.load_default(CAPTION_SIZE)
    title_height, caption_height = TITLE_SIZE + 10, CAPTION_SIZE + 14
    row_height = tile[1] + caption_height
    canvas = Image.new("RGB", (width, 2 * MARGIN + title_height + row_height * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(canvas)

    for title, start, count in zip(titles, starts, columns, strict=True):
        room = count * (tile[0] + GAP) - GAP
        draw.text((start, MARGIN), _fit(title, title_font, room), TITLE_COLOUR, title_font)
    for index, row in enumerate(rows):
        top = MARGIN + title_height + index * row_height
        for images, start, count in zip((row.left, row.right), starts, columns, strict=True):
            for column in range(count):
                corner = (start + column * (tile[0] + GAP), top)
                if column < len(images):
                    canvas.paste(_resized(images[column], tile), corner)
                else:
                    draw.rectangle((*corner, corner[0] + tile[0] - 1, top + tile[1] - 1), EMPTY_COLOUR)
        caption = _fit(row.prompt, caption_font, width - 2 * MARGIN)
        draw.text((MARGIN, top + tile[1] + 3), caption, CAPTION_COLOUR, caption_font)
    return png_bytes(canvas)


def png_bytes(image: Image.Image) -> bytes:
    """An image as PNG without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def _common_shape(rows: Sequence[GridRow]) -> tuple[int, int]:
    images = [image for row in rows for image in (*row.left, *row.right)]
    if not images:
        raise ValueError("a grid needs at least one image")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        if image.shape != images[0].shape:
            raise ValueError(f"images differ in size: {image.shape[:2]} and {images[0].shape[:2]}")
    return images[0].shape[0], images[0].shape[1]


def _tile_size(shape: tuple[int, int], scale: int) -> tuple[int, int]:
    """Width and height of a tile, in pixels."""
    height, width = shape
    factor = min(float(scale), LARGEST_TILE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _columns(counts: tuple[int, int], tile_width: int) -> tuple[tuple[int, int], int]:
    """Where the left and the right images start, and the width of the whole, in pixels."""
    right = MARGIN + counts[0] * (tile_width + GAP) - GAP + GAP_BETWEEN_SIDES
    return (MARGIN, right), right + counts[1] * (tile_width + GAP) - GAP + MARGIN


def _resized(image: Picture, tile: tuple[int, int]) -> Image.Image:
    enlarges = tile[0] >= image.shape[1]
    return Image.fromarray(image).resize(tile, Image.Resampling.NEAREST if enlarges else Image.Resampling.BOX)


def _fit(text: str, font: Font, room: int) -> str:
    """The text on one line, cut with an ellipsis where it does not fit the room (pixels)."""
    # No character is narrower than a fifth of a pixel; measuring a megabyte takes minutes.
    line = " ".join(text[: 5 * room].split())
    if font.getlength(line) <= room:
        return line
    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(line[:middle].rstrip() + "...") <= room:
            low = middle
        else:
            high = middle - 1
    return line[:low].rstrip() + "..."
