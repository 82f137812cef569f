"""The grid: deterministic bytes, every image at its place, captions that always fit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twinflow_core.report.grid import GridRow, Picture, comparison_grid


def plain(colour: tuple[int, int, int], side: int = 32) -> Picture:
    return np.full((side, side, 3), colour, np.uint8)


def decoded(png: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_places_left_and_right_images_enlarged_pixel_by_pixel() -> None:
    grid = decoded(comparison_grid([GridRow("a red circle", [plain((255, 0, 0))], [plain((0, 0, 255))])]))
    assert (grid == (255, 0, 0)).all(-1).sum() == 96 * 96
    assert (grid == (0, 0, 255)).all(-1).sum() == 96 * 96
    red, blue = ((grid == colour).all(-1).nonzero()[1] for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.max() < blue.min()


def test_large_images_are_reduced() -> None:
    grid = decoded(comparison_grid([GridRow("large", [plain((255, 0, 0), side=512)], [])]))
    assert (grid == (255, 0, 0)).all(-1).sum() == 192 * 192


def test_same_arguments_same_bytes_and_no_metadata() -> None:
    rows = [GridRow("a photo", [plain((9, 9, 9))], [plain((8, 8, 8)), plain((7, 7, 7))])]
    first = comparison_grid(rows)
    assert first == comparison_grid(rows)
    assert Image.open(io.BytesIO(first)).info == {}


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=400), st.integers(0, 3), st.integers(1, 3))
def test_any_prompt_and_any_number_of_images(prompt: str, left: int, right: int) -> None:
    row = GridRow(prompt, [plain((0, 0, 0), 8)] * left, [plain((0, 0, 0), 8)] * right)
    assert decoded(comparison_grid([row])).shape[2] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one image"),
        ([GridRow("x", [plain((0, 0, 0), 8)], [plain((0, 0, 0), 9)])], "differ in size"),
        ([GridRow("x", [np.zeros((8, 8, 3), np.float32)], [])], "uint8"),
    ],
)
def test_refuses_what_it_cannot_draw(rows: list[GridRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comparison_grid(rows)
