"""The shapes world: captions, records, and what is held out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.data.shapes_world import (
    COLORS,
    LEADS,
    SHAPES,
    TASKS,
    Content,
    captions,
    contents,
    evaluation_prompts,
    is_held_out,
    is_held_out_pair,
    training_captions,
)
from twinflow_core.errors import TwinflowError

any_content = st.sampled_from([content for task in TASKS for content in contents(task)])
any_lead = st.sampled_from(LEADS)


def test_captions_follow_genevals_templates() -> None:
    said = [
        Content("single_object", (("circle", None),)),
        Content("two_object", (("circle", None), ("square", None))),
        Content("counting", (("triangle", None),), count=3),
        Content("colors", (("square", "orange"),)),
        Content("position", (("circle", None), ("square", None)), relation="left of"),
        Content("color_attr", (("circle", "red"), ("square", "blue"))),
    ]
    assert [content.caption("a photo of") for content in said] == [
        "a photo of a circle",
        "a photo of a circle and a square",
        "a photo of three triangles",
        "a photo of an orange square",
        "a photo of a circle left of a square",
        "a photo of a red circle and a blue square",
    ]


def test_a_position_record_names_the_anchor_first_as_geneval_does() -> None:
    record = Content("position", (("circle", None), ("square", None)), relation="above").metadata(
        "a photo of"
    )
    assert record["include"] == [
        {"class": "square", "count": 1},
        {"class": "circle", "count": 1, "position": ["above", 0]},
    ]


def test_a_counting_record_excludes_one_more() -> None:
    record = Content("counting", (("circle", None),), count=2).metadata("a photo of")
    assert record["include"] == [{"class": "circle", "count": 2}]
    assert record["exclude"] == [{"class": "circle", "count": 3}]


def test_some_pairs_are_held_out_and_every_shape_and_most_colours_stay() -> None:
    held = {(shape, color) for shape in SHAPES for color in COLORS if is_held_out_pair(shape, color)}
    assert held == {("circle", "black"), ("square", "green"), ("triangle", "red")}


@given(any_content, any_lead)
def test_a_caption_is_for_training_or_for_evaluation(content: Content, lead: str) -> None:
    held = (content, lead) in captions(content.task, held_out=True)
    assert held != ((content, lead) in captions(content.task, held_out=False))
    assert held == is_held_out(content, lead)


@given(any_content.filter(lambda content: content.task == "color_attr"), any_lead, any_lead)
def test_a_two_colour_combination_is_held_out_under_every_lead(
    content: Content, one: str, other: str
) -> None:
    assert is_held_out(content, one) == is_held_out(content, other)


def test_training_never_names_a_held_out_pair() -> None:
    for content, lead in training_captions():
        assert content.metadata(lead)["slice"] == "seen pair"


def test_evaluation_prompts_are_held_out_distinct_balanced_and_stable() -> None:
    prompts = evaluation_prompts(15, seed=3)
    assert prompts == evaluation_prompts(15, seed=3)
    assert prompts != evaluation_prompts(15, seed=4)
    assert [sum(p["tag"] == task for p in prompts) for task in TASKS] == [15] * 6
    texts = {prompt["prompt"] for prompt in prompts}
    assert len(texts) == len(prompts)
    assert not texts & {content.caption(lead) for content, lead in training_captions()}
    assert {prompt["slice"] for prompt in prompts} == {"seen pair", "unseen pair"}


def test_a_small_task_gives_all_it_has() -> None:
    prompts = evaluation_prompts(10_000, seed=0)
    single = [prompt for prompt in prompts if prompt["tag"] == "single_object"]
    assert len(single) == len(captions("single_object", held_out=True))


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(TwinflowError, match="unknown task"):
        contents("tasting")  # type: ignore[arg-type]
