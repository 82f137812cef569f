"""GenEval's rules: which detections count, whether a picture is right, and how scores add up. Pure functions.

Source: Ghosh et al., "GenEval" (arXiv 2310.11513), djghosh13/geneval `evaluation/evaluate_images.py`, with the class
names and the colour given by the detector in place of Mask2Former and CLIP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.detections import Detection

Metadata = dict[str, Any]

TASKS: tuple[str, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
SCORE_THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
MAX_OBJECTS = 16
# A relation is judged on the offset that is left after a tenth of both boxes' extents is taken off.
POSITION_SLACK = 0.1
POSITION_SHARE = 0.5


@dataclass(frozen=True)
class Verdict:
    """Whether one picture is right, and in words why not."""

    correct: bool
    reasons: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """All reasons, a line each; empty for a right picture."""
        return "\n".join(self.reasons)


def kept_detections(detections: Iterable[Detection], tag: str) -> dict[str, list[Detection]]:
    """By class, the detections strictly above the task's threshold, best first, at most sixteen."""
    threshold = COUNTING_THRESHOLD if tag == "counting" else SCORE_THRESHOLD
    by_class: dict[str, list[Detection]] = defaultdict(list)
    for detection in sorted(detections, key=lambda found: -found.score):
        if detection.score > threshold and len(by_class[detection.cls]) < MAX_OBJECTS:
            by_class[detection.cls].append(detection)
    return {name: found for name, found in by_class.items() if found}


def relations(a: Detection, b: Detection) -> set[str]:
    """How `a` lies relative to `b`: none, one or two of left of, right of, above, below (y points down)."""
    boxes = np.array([a.box, b.box], dtype=np.float64).reshape(2, 2, 2)
    center_a, center_b = boxes.mean(axis=1)
    extent_a, extent_b = np.abs(np.diff(boxes, axis=1))[:, 0, :]
    offset = center_a - center_b
    revised = np.maximum(np.abs(offset) - POSITION_SLACK * (extent_a + extent_b), 0) * np.sign(offset)
    if np.all(np.abs(revised) < 1e-3):
        return set()
    dx, dy = revised / np.linalg.norm(offset)
    holds = {
        "left of": dx < -POSITION_SHARE,
        "right of": dx > POSITION_SHARE,
        "above": dy < -POSITION_SHARE,
        "below": dy > POSITION_SHARE,
    }
    return {name for name, true in holds.items() if true}


def evaluate(detections: Iterable[Detection], metadata: Metadata) -> Verdict:
    """Whether a picture shows what its prompt asks for.

    Every `include` must be found at least `count` times, the best `count` of them all in the asked colour and in the
    asked position relative to the best of their target; an `exclude` fails at `count`. Other classes do not matter.

    Args:
        detections: what the detector found.
        metadata: the prompt's record in GenEval's schema.
    """
    kept = kept_detections(detections, metadata["tag"])
    reasons: list[str] = []
    matched: list[list[Detection] | None] = []
    for request in metadata.get("include", []):
        found = kept.get(request["class"], [])[: request["count"]]
        problem = _problem(found, request, matched)
        if problem:
            reasons.append(problem)
        matched.append(None if problem else found)
    for request in metadata.get("exclude", []):
        number = len(kept.get(request["class"], []))
        if number >= request["count"]:
            reasons.append(f"expected {request['class']} < {request['count']}, found {number}")
    return Verdict(not reasons, tuple(reasons))


def _problem(found: list[Detection], request: Metadata, matched: Sequence[list[Detection] | None]) -> str:
    """What is wrong with the objects found for one request; empty when nothing is."""
    name, count = request["class"], request["count"]
    if len(found) < count:
        return f"expected {name} >= {count}, found {len(found)}"
    color = request.get("color")
    right = sum(thing.color == color for thing in found)
    if color and right < count:
        seen = ", ".join(str(thing.color) for thing in found)
        return f"expected {color} {name} >= {count}, found {right} {color}; and {seen}"
    if "position" not in request:
        return ""
    relation, target = request["position"]
    anchors = matched[target]
    if anchors is None:
        return f"no target for {name} to be {relation}"
    for thing in found:
        for anchor in anchors:
            actual = relations(thing, anchor)
            if relation not in actual:
                seen = " and ".join(sorted(actual)) or "no relation to"
                return f"expected {name} {relation} target, found {seen} target"
    return ""


@dataclass(frozen=True)
class Score:
    """Scores in [0, 1] over many pictures.

    Args:
        overall: unweighted mean of the task means.
        tasks: mean over the pictures of each task.
        images: share of right pictures.
        prompts: share of prompts with at least one right picture.
    """

    overall: float
    tasks: dict[str, float]
    images: float
    prompts: float
    counts: dict[str, int] = field(default_factory=dict)


def aggregate(results: Iterable[tuple[Metadata, bool]]) -> Score:
    """Add up verdicts; `overall` is the unweighted mean over the tasks that occur.

    Args:
        results: for each picture its prompt's record and whether it is right.

    Raises:
        TwinflowError: no results at all.
    """
    by_task: dict[str, list[bool]] = defaultdict(list)
    by_prompt: dict[str, bool] = {}
    for metadata, correct in results:
        by_task[metadata["tag"]].append(correct)
        by_prompt[metadata["prompt"]] = by_prompt.get(metadata["prompt"], False) or correct
    if not by_task:
        raise TwinflowError("there is nothing to score", where="results", fix="generate at least one picture")
    order = [*(tag for tag in TASKS if tag in by_task), *(tag for tag in by_task if tag not in TASKS)]
    tasks = {tag: float(np.mean(by_task[tag])) for tag in order}
    return Score(
        overall=float(np.mean(list(tasks.values()))),
        tasks=tasks,
        images=float(np.mean([correct for verdicts in by_task.values() for correct in verdicts])),
        prompts=float(np.mean(list(by_prompt.values()))),
        counts={tag: len(by_task[tag]) for tag in order},
    )
