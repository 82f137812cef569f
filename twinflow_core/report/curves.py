"""Training curves as SVG, readable on a light and on a dark page."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

GREY = "#8a93a3"
COLOURS = ("#2b8a9e", "#d9822b", "#8f6fd1", "#5b9a3c", "#c6557a", "#7c8594")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "twinflow",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}
LARGEST_LINEAR_RANGE = 30.0


@dataclass(frozen=True)
class Curve:
    """One drawing: its title, the columns of the training log in it, and the SVG."""

    title: str
    columns: tuple[str, ...]
    svg: bytes


def training_curves(training: Mapping[str, list[float]]) -> list[Curve]:
    """One drawing for the loss, one for the parts of the loss, one for each other column.

    Args:
        training: columns of the training log; `step` is the horizontal axis, NaN is left out.

    Returns:
        No drawing if there is no step or no other column with a finite value.
    """
    steps = training.get("step", [])
    columns = [
        name
        for name, values in training.items()
        if name != "step" and any(map(math.isfinite, values)) and len(values) == len(steps)
    ]
    parts = [name for name in columns if name.startswith("loss") and name != "loss"]
    groups = [("loss", ["loss"])] if "loss" in columns else []
    groups += [("parts of the loss", parts)] if parts else []
    groups += [(name.replace("_", " "), [name]) for name in columns if not name.startswith("loss")]
    return [
        Curve(title, tuple(names), _draw(steps, {name: training[name] for name in names}))
        for title, names in groups
    ]


def _draw(steps: list[float], lines: Mapping[str, list[float]]) -> bytes:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.2), layout="constrained")
        axes = figure.add_subplot()
        for (name, values), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
            points = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, label=name.replace("_", " "))
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        values = [value for line in lines.values() for value in line if math.isfinite(value)]
        if min(values) > 0 and max(values) / min(values) > LARGEST_LINEAR_RANGE:
            axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_xlabel("step")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue().encode()
