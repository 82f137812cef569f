"""Scenes and pictures of the shapes world."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.data.shapes_render import coverage, render, render_dataset
from twinflow_core.data.shapes_scene import CANVAS, GAP, relation_of, sample_scene
from twinflow_core.data.shapes_world import (
    BACKGROUND,
    PALETTE,
    TASKS,
    Content,
    Scene,
    ShapeObject,
    contents,
    is_held_out_pair,
)

any_content = st.sampled_from([content for task in TASKS for content in contents(task)])
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("shape", "area"), [("circle", math.pi / 4), ("square", 1.0), ("triangle", 0.5)])
@pytest.mark.parametrize("size", [9, 12])
def test_coverage_has_the_shapes_area(shape: str, area: float, size: int) -> None:
    assert coverage(shape, size).mean() == pytest.approx(area, abs=0.01)


def test_a_square_is_drawn_where_it_is_said_to_be() -> None:
    image = render(Scene((ShapeObject("square", "blue", 9, x=3, y=20),)))
    expected = np.full((CANVAS, CANVAS, 3), BACKGROUND, dtype=np.uint8)
    expected[20:29, 3:12] = PALETTE["blue"]
    np.testing.assert_array_equal(image, expected)


@settings(deadline=None)
@given(any_content, seeds)
def test_a_scene_shows_what_is_said_and_keeps_its_gaps(content: Content, seed: int) -> None:
    scene = sample_scene(content, np.random.default_rng(seed))
    named = content.objects * content.count
    assert [thing.shape for thing in scene.objects] == [shape for shape, _ in named]
    for thing, (_, color) in zip(scene.objects, named, strict=True):
        assert thing.color == color if color else not is_held_out_pair(thing.shape, thing.color)
        assert 0 <= thing.x <= CANVAS - thing.size
        assert 0 <= thing.y <= CANVAS - thing.size
    if content.relation:
        assert relation_of(scene.objects[0], scene.objects[1]) == content.relation
    for i, a in enumerate(scene.objects):
        for b in scene.objects[:i]:
            apart_x = max(a.x - b.x - b.size, b.x - a.x - a.size)
            apart_y = max(a.y - b.y - b.size, b.y - a.y - a.size)
            assert max(apart_x, apart_y) >= GAP


@given(st.integers(0, 40), seeds)
@settings(deadline=None, max_examples=10)
def test_a_longer_data_set_begins_with_the_shorter_one(count: int, seed: int) -> None:
    short = list(render_dataset(count, seed))
    long = list(render_dataset(count + 3, seed))
    for (image, caption, record), (same, said, kept) in zip(short, long, strict=False):
        assert image.tobytes() == same.tobytes()
        assert (caption, record) == (said, kept)


def test_the_data_set_goes_through_the_tasks_in_turn() -> None:
    tags = [record["tag"] for _, _, record in render_dataset(12, 0)]
    assert tags == [*TASKS, *TASKS]


def test_a_relation_between_two_directions_is_none() -> None:
    anchor = ShapeObject("circle", "red", 10, 10, 10)
    assert relation_of(anchor.moved(0, 0), anchor) is None
    assert relation_of(anchor, anchor) is None
    assert relation_of(anchor.moved(0, 12), anchor) == "left of"
    assert relation_of(anchor.moved(11, 21), anchor) == "below"
