"""Placing shapes: a random scene that makes a caption true, with a gap around every shape.

Everything a caption leaves open (colours, sizes, positions) is drawn at random, from the shape-colour pairs that
are not held out.
"""

from __future__ import annotations

import math

import numpy as np

from twinflow_core.data.shapes_world import (
    COLORS,
    Content,
    Scene,
    ShapeObject,
    is_held_out_pair,
)

CANVAS = 32
GAP = 2
MARGIN = 1
SIZES: tuple[int, int] = (9, 12)
CROWDED_SIZES: tuple[int, int] = (9, 10)
# A captioned relation holds by this share of the distance, well inside GenEval's 0.5, so that no picture is moot.
CLEAR_RELATION = 0.8
_TRIES = 200


def relation_of(first: ShapeObject, second: ShapeObject) -> str | None:
    """How the first shape clearly lies to the second, or None when the direction is between two relations."""
    dx = (first.x + first.size / 2) - (second.x + second.size / 2)
    dy = (first.y + first.size / 2) - (second.y + second.size / 2)
    distance = math.hypot(dx, dy)
    if distance == 0:
        return None
    if abs(dx) >= CLEAR_RELATION * distance:
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= CLEAR_RELATION * distance:
        return "above" if dy < 0 else "below"
    return None


def sample_scene(content: Content, rng: np.random.Generator) -> Scene:
    """A scene for which the content is true and no other shape is present.

    Args:
        content: what the scene must show.
        rng: where every open choice is drawn from.
    """
    named = content.objects * content.count
    wanted = [(shape, color or _free_color(shape, rng)) for shape, color in named]
    while True:
        placed = _place(wanted, rng)
        if placed and (not content.relation or relation_of(placed[0], placed[1]) == content.relation):
            return Scene(tuple(placed))


def _free_color(shape: str, rng: np.random.Generator) -> str:
    allowed = [color for color in COLORS if not is_held_out_pair(shape, color)]
    return allowed[int(rng.integers(len(allowed)))]


def _place(wanted: list[tuple[str, str]], rng: np.random.Generator) -> list[ShapeObject] | None:
    """Positions by rejection, shape after shape; None when the canvas filled up badly."""
    low, high = SIZES if len(wanted) <= 2 else CROWDED_SIZES
    placed: list[ShapeObject] = []
    for shape, color in wanted:
        size = int(rng.integers(low, high + 1))
        corners = rng.integers(MARGIN, CANVAS - MARGIN - size + 1, size=(_TRIES, 2))
        for x, y in corners.tolist():
            candidate = ShapeObject(shape, color, size, x, y)
            if all(_apart(candidate, other) for other in placed):
                placed.append(candidate)
                break
        else:
            return None
    return placed


def _apart(a: ShapeObject, b: ShapeObject) -> bool:
    """Whether the two boxes leave `GAP` pixels between them."""
    return (
        a.x + a.size + GAP <= b.x
        or b.x + b.size + GAP <= a.x
        or a.y + a.size + GAP <= b.y
        or b.y + b.size + GAP <= a.y
    )
