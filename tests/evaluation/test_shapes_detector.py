"""Whether the synthetic six-task benchmark measures what it says: its validity gates."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from twinflow_core.data.shapes_render import render
from twinflow_core.data.shapes_scene import sample_scene
from twinflow_core.data.shapes_world import (
    COLORS,
    RELATIONS,
    SHAPES,
    TASKS,
    Content,
    Metadata,
    captions,
)
from twinflow_core.evaluation.geneval import aggregate, evaluate
from twinflow_core.evaluation.shapes_detector import ShapesDetector

LEAD = "a photo of"
DETECTOR = ShapesDetector()


@cache
def drawn(each: int) -> tuple[tuple[Content, np.ndarray], ...]:
    """`each` held-out contents of every task with a true picture."""
    rng = np.random.default_rng(11)
    out = []
    for task in TASKS:
        pool = captions(task, held_out=True)
        for _ in range(each):
            content, _ = pool[int(rng.integers(len(pool)))]
            out.append((content, render(sample_scene(content, rng))))
    return tuple(out)


def tasks_of(results: list[tuple[Metadata, np.ndarray]]) -> dict[str, float]:
    return aggregate((record, right(image, record)) for record, image in results).tasks


def right(image: np.ndarray, record: Metadata) -> bool:
    return evaluate(DETECTOR.detect(image), record).correct


def flipped(content: Content, rng: np.random.Generator) -> Content:
    """The content with one thing it says made false."""
    (shape, color), *rest = content.objects

    def other(names: tuple[str, ...], *used: str | None) -> str:
        free = [name for name in names if name not in used]
        return free[int(rng.integers(len(free)))]

    if content.task in ("single_object", "two_object"):
        taken = [name for name, _ in content.objects]
        return replace(content, objects=((other(SHAPES, *taken), None), *rest))
    if content.task == "counting":
        return replace(content, count={2: 3, 3: 4, 4: 3}[content.count])
    if content.task == "position":
        return replace(content, relation=other(RELATIONS, content.relation))
    return replace(content, objects=((shape, other(COLORS, color)), *rest))


def test_rendered_truth_is_right() -> None:
    scores = tasks_of([(content.metadata(LEAD), image) for content, image in drawn(60)])
    assert min(scores.values()) >= 0.99, scores


def test_one_false_attribute_is_wrong() -> None:
    rng = np.random.default_rng(5)
    results = []
    for content, _ in drawn(60):
        wrong = flipped(content, rng)
        results.append((content.metadata(LEAD), render(sample_scene(wrong, rng))))
    scores = tasks_of(results)
    assert max(scores.values()) <= 0.01, scores


def test_colour_attribution_sees_a_swap() -> None:
    rng = np.random.default_rng(6)
    for content, _ in drawn(40)[-40:]:
        (a, red), (b, blue) = content.objects
        swapped = replace(content, objects=((a, blue), (b, red)))
        assert not right(render(sample_scene(swapped, rng)), content.metadata(LEAD))
        alone = Content("colors", ((a, red),))
        assert not right(render(sample_scene(alone, rng)), content.metadata(LEAD))


@pytest.mark.parametrize(
    ("task", "chance"),
    # "A left of B" is also "B right of A", so two of the 24 position contents are true of a picture.
    [("counting", 1 / 9), ("colors", 1 / 24), ("position", 2 / 24)],
)
def test_shuffled_prompts_score_as_chance_does(task: str, chance: float) -> None:
    rng = np.random.default_rng(7)
    pairs = [(content, image) for content, image in drawn(60) if content.task == task]
    results = [
        (content.metadata(LEAD), pairs[other][1])
        for _ in range(5)
        for (content, _), other in zip(pairs, rng.permutation(len(pairs)), strict=True)
    ]
    assert tasks_of(results)[task] == pytest.approx(chance, abs=0.08)


def test_an_empty_picture_and_pure_noise_show_nothing() -> None:
    rng = np.random.default_rng(8)
    blank = np.full((32, 32, 3), (244, 244, 240), dtype=np.uint8)
    assert DETECTOR.detect(blank) == []
    for _ in range(10):
        noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        assert all(detection.score <= 0.3 for detection in DETECTOR.detect(noise))


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_damage_lowers_the_score_and_never_raises_it(kind: str) -> None:
    rng = np.random.default_rng(9)
    levels = (0.0, 0.5, 1.0, 2.0, 3.0) if kind == "blur" else (0.0, 8.0, 40.0, 80.0, 120.0)
    scores = []
    for level in levels:
        results = []
        for content, image in drawn(20):
            pixels = image.astype(float)
            if kind == "blur":
                pixels = ndimage.gaussian_filter(pixels, (level, level, 0))
            else:
                pixels = pixels + level * rng.standard_normal(pixels.shape)
            results.append((content.metadata(LEAD), np.rint(pixels.clip(0, 255)).astype(np.uint8)))
        scores.append(aggregate((record, right(picture, record)) for record, picture in results).overall)
    assert scores[0] >= 0.99
    assert scores[-1] <= 0.5, scores
    assert all(later <= earlier + 0.03 for earlier, later in itertools.pairwise(scores)), scores


def test_scores_boxes_and_masks_are_in_range() -> None:
    for _, image in drawn(5):
        for detection in DETECTOR.detect(image):
            assert 0.9 < detection.score <= 1
            left, top, right_, bottom = detection.box
            assert 0 <= left < right_ <= 32
            assert 0 <= top < bottom <= 32
            assert detection.mask is not None
            assert detection.mask.shape == (32, 32)
            assert detection.color in COLORS
