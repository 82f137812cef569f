"""The cells as a table and as a picture: mean over seeds, and the spread where there is more than one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Cell = dict[str, Any]
STOPS = {"equal_steps": "at equal steps", "equal_cost": "at equal forward-equivalents"}


def objectives_of(cells: Sequence[Cell]) -> list[str]:
    """Names in the order of their first cell."""
    return list(dict.fromkeys(cell["objective"] for cell in cells))


def best_sampler(cell: Cell, stop: str, nfe: int) -> Cell:
    """The metrics of whichever sampler scores higher, so that no objective is held to another's sampler."""
    samplers = cell["stops"][stop]["nfe"][str(nfe)]
    return max(samplers.values(), key=lambda metrics: metrics["score"])


def table(cells: Sequence[Cell], nfe: Sequence[int]) -> str:
    """Markdown: one table for each way of comparing."""
    lines = [
        "Score / diversity / distribution at each number of evaluations (NFE), the better of two samplers."
    ]
    for stop, title in STOPS.items():
        heads = ["objective", "steps", "cost a row", "images/s", "peak MiB", *(f"NFE {each}" for each in nfe)]
        lines += ["", f"### {title.capitalize()}", "", _row(heads), _row(["---"] * len(heads))]
        for name in objectives_of(cells):
            own = [cell for cell in cells if cell["objective"] == name]
            lines.append(
                _row(
                    [
                        name,
                        str(own[0]["stops"][stop]["steps"]),
                        f"{own[0]['equivalents_a_row']:.2f}",
                        _mean(own, lambda cell: cell["images_per_second"], 0),
                        _mean(own, lambda cell: cell["peak_memory_mib"], 0),
                        *(_metrics(own, stop, each) for each in nfe),
                    ]
                )
            )
    return "\n".join(lines) + "\n"


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _metrics(cells: Sequence[Cell], stop: str, nfe: int) -> str:
    def value(name: str) -> Callable[[Cell], float]:
        return lambda cell: best_sampler(cell, stop, nfe)[name]

    return " / ".join(_mean(cells, value(name), 3) for name in ("score", "diversity", "distribution"))


def _mean(cells: Sequence[Cell], value: Callable[[Cell], float], digits: int) -> str:
    values = [value(cell) for cell in cells]
    spread = f" ±{statistics.stdev(values):.{digits}f}" if len(values) > 1 and digits else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def draw_plot(cells: Sequence[Cell], nfe: Sequence[int], path: Path) -> None:
    """Score over NFE, one panel for each way of comparing, one line an objective with its seeds as dots."""
    figure, panels = plt.subplots(1, len(STOPS), figsize=(10, 4), sharey=True)
    for panel, (stop, title) in zip(panels, STOPS.items(), strict=True):
        for index, name in enumerate(objectives_of(cells)):
            own = [cell for cell in cells if cell["objective"] == name]
            scores = [[best_sampler(cell, stop, each)["score"] for cell in own] for each in nfe]
            panel.plot(nfe, [statistics.fmean(each) for each in scores], color=f"C{index}", label=name)
            for each, values in zip(nfe, scores, strict=True):
                panel.plot([each] * len(values), values, ".", color=f"C{index}")
        panel.set(
            title=title, xlabel="NFE", xscale="log", xticks=nfe, xticklabels=[str(each) for each in nfe]
        )
        panel.minorticks_off()
    panels[0].set_ylabel("score")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
