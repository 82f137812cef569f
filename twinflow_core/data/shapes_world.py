"""The bundled shapes world: what can be drawn, what can be said of it, and what is held out.

Three shapes in eight colours on a plain light ground, 32x32 pixels, and the captions of GenEval's six tasks.
A caption is a lead phrase ("a photo of") and a `Content`; a scene is what a picture shows. What is held out is
decided by a hash of the words alone, so every machine and every version agrees on it without a list.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from twinflow_core.errors import TwinflowError

Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
Metadata = dict[str, Any]

TASKS: tuple[Task, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
SHAPES: tuple[str, ...] = ("circle", "square", "triangle")
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (245, 135, 20),
    "yellow": (242, 218, 40),
    "green": (40, 160, 70),
    "blue": (40, 90, 215),
    "purple": (130, 55, 185),
    "pink": (248, 140, 195),
    "black": (28, 28, 30),
}
COLORS: tuple[str, ...] = tuple(PALETTE)
BACKGROUND: tuple[int, int, int] = (244, 244, 240)
NUMBER_WORDS: dict[int, str] = {2: "two", 3: "three", 4: "four"}
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
LEADS: tuple[str, ...] = tuple(
    f"{'an' if noun[0] in 'aeiou' else 'a'} {noun} of"
    for noun in (
        *("photo", "picture", "image", "drawing", "sketch", "painting", "rendering", "print", "view", "icon"),
        *("snapshot", "illustration", "depiction", "figure", "diagram", "poster", "sticker", "card"),
        *("thumbnail", "portrait"),
    )
)

HELD_OUT_CAPTIONS = 0.25
HELD_OUT_PAIRS = 0.12
_SALT = "shapes-world-16"


@dataclass(frozen=True)
class Content:
    """What a caption says, without its lead phrase.

    Args:
        task: one of GenEval's six tasks.
        objects: (shape, colour or None when the caption leaves it open), in the order they are named.
        count: how many of the one shape a counting caption asks for; 1 otherwise.
        relation: where the first object lies relative to the second, for the position task.
    """

    task: Task
    objects: tuple[tuple[str, str | None], ...]
    count: int = 1
    relation: str | None = None

    @property
    def phrase(self) -> str:
        """The words after the lead: "a red circle and a blue square"."""
        if self.count > 1:
            return f"{NUMBER_WORDS[self.count]} {self.objects[0][0]}s"
        joint = f" {self.relation or 'and'} "
        return joint.join(
            _with_article(f"{color} {shape}" if color else shape) for shape, color in self.objects
        )

    def caption(self, lead: str) -> str:
        """The whole caption under a lead phrase."""
        return f"{lead} {self.phrase}"

    def metadata(self, lead: str) -> Metadata:
        """GenEval's own record of the prompt, plus `slice`: `seen pair` or `unseen pair`.

        As in GenEval, a position prompt "A left of B" lists B first and A second with `["left of", 0]`.
        """
        include: list[Metadata] = [
            {"class": shape, "count": self.count} | ({"color": color} if color else {})
            for shape, color in self.objects
        ]
        if self.relation:
            first, second = include
            include = [second, first | {"position": [self.relation, 0]}]
        exclude = [{"class": self.objects[0][0], "count": self.count + 1}] if self.task == "counting" else []
        unseen = any(color and is_held_out_pair(shape, color) for shape, color in self.objects)
        return {
            "tag": self.task,
            "include": include,
            "exclude": exclude,
            "prompt": self.caption(lead),
            "slice": "unseen pair" if unseen else "seen pair",
        }


@dataclass(frozen=True)
class ShapeObject:
    """One drawn shape: its box is `size` pixels square with its top left pixel at (x, y)."""

    shape: str
    color: str
    size: int
    x: int
    y: int

    def moved(self, x: int, y: int) -> ShapeObject:
        """The same shape elsewhere."""
        return replace(self, x=x, y=y)


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    objects: tuple[ShapeObject, ...]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _fraction(words: str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    digest = hashlib.sha256(f"{_SALT}:{words}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@cache
def is_held_out_pair(shape: str, color: str) -> bool:
    """Whether pretraining and fine-tuning never see this shape in this colour, named or not."""
    return _fraction(f"{color} {shape}") < HELD_OUT_PAIRS


@cache
def is_held_out(content: Content, lead: str) -> bool:
    """The one rule of what is kept for evaluation.

    A caption is held out if it names a held-out pair, or by the hash of its words. For `color_attr`, whose
    contents are many, the lead is left out of the hash: the combination is then unseen under every lead.
    """
    if any(color and is_held_out_pair(shape, color) for shape, color in content.objects):
        return True
    words = content.phrase if content.task == "color_attr" else content.caption(lead)
    return _fraction(words) < HELD_OUT_CAPTIONS


@cache
def contents(task: Task) -> tuple[Content, ...]:
    """Everything the captions of a task can say, in a fixed order.

    Raises:
        TwinflowError: the task is not one of the six.
    """
    pairs = tuple(itertools.permutations(SHAPES, 2))
    if task == "single_object":
        return tuple(Content(task, ((shape, None),)) for shape in SHAPES)
    if task == "two_object":
        return tuple(Content(task, ((a, None), (b, None))) for a, b in pairs)
    if task == "counting":
        return tuple(Content(task, ((s, None),), count=n) for s in SHAPES for n in NUMBER_WORDS)
    if task == "colors":
        return tuple(Content(task, ((s, c),)) for s in SHAPES for c in COLORS)
    if task == "position":
        return tuple(Content(task, ((a, None), (b, None)), relation=r) for a, b in pairs for r in RELATIONS)
    if task == "color_attr":
        hues = tuple(itertools.permutations(COLORS, 2))
        return tuple(Content(task, ((a, c), (b, d))) for a, b in pairs for c, d in hues)
    raise TwinflowError(f"unknown task '{task}'", where="task", fix=f"use one of {', '.join(TASKS)}")


@cache
def captions(task: Task, *, held_out: bool) -> tuple[tuple[Content, str], ...]:
    """The (content, lead) pairs of a task that are for evaluation, or for training."""
    return tuple((c, lead) for c in contents(task) for lead in LEADS if is_held_out(c, lead) == held_out)


def training_captions() -> Iterator[tuple[Content, str]]:
    """Every caption that training may use, task by task."""
    for task in TASKS:
        yield from captions(task, held_out=False)


def evaluation_prompts(count_per_task: int, seed: int) -> list[Metadata]:
    """Held-out prompts in GenEval's schema, task by task.

    Args:
        count_per_task: prompts wanted for each task; a task with fewer held-out captions gives all of them.
        seed: which of them, and in which order.
    """
    prompts: list[Metadata] = []
    for index, task in enumerate(TASKS):
        pool = captions(task, held_out=True)
        order = np.random.default_rng([seed, index]).permutation(len(pool))[:count_per_task]
        prompts += [pool[i][0].metadata(pool[i][1]) for i in order]
    return prompts
