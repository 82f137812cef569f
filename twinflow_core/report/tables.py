"""The numbers of the report as rows of text: scores by task, and key figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twinflow_core.gates.metrics import TASKS, UnusableMetricError, metric_value
from twinflow_core.report.context import Fact

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A number as text, and how full its bar is, 0 to 1; None draws no bar."""

    text: str
    fill: float | None = None


@dataclass(frozen=True)
class ScoreTable:
    """Columns are models at their settings, rows are tasks, then score and diversity."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def score_table(metrics: Mapping[str, Any]) -> ScoreTable | None:
    """Every model and setting that was evaluated; None if there are no metrics."""
    if not isinstance(metrics.get("candidate"), Mapping) or not isinstance(metrics.get("reference"), Mapping):
        return None
    columns = [("base", f"{_figure(metrics, 'reference.nfe', '.0f')} NFE", "reference")]
    if "nfe1" in metrics["reference"]:
        columns.append(("base", "1 NFE", "reference.nfe1"))
    settings = sorted(metrics["candidate"], key=_by_steps)
    columns += [("candidate", _setting_title(each), f"candidate.{each}") for each in settings]
    for size, there in metrics.get("sizes", {}).items():
        columns.append((f"base, {size}", columns[0][1], f"sizes.{size}.reference"))
        columns += [
            (f"candidate, {size}", _setting_title(each), f"sizes.{size}.candidate.{each}")
            for each in sorted(there["candidate"], key=_by_steps)
        ]
    named = {task for *_, path in columns for task in _tasks(metrics, path)}
    tasks = [task for task in TASKS if task in named] + sorted(named - set(TASKS))
    quantities = [(task.replace("_", " "), f"tasks.{task}") for task in tasks]
    quantities += [("score", "score"), ("diversity", "diversity")]
    rows = []
    for title, quantity in quantities:
        bars = quantity != "diversity"
        rows.append((title, tuple(_cell(metrics, f"{path}.{quantity}", bars) for *_, path in columns)))
    return ScoreTable(tuple((model, setting) for model, setting, _ in columns), tuple(rows))


def key_figures(metrics: Mapping[str, Any]) -> tuple[Fact, ...]:
    """What a reader wants first: the one-step score, what part of the base's it is, the diversity."""
    figures = (
        Fact("score at 1 NFE", _figure(metrics, "candidate.nfe1.score")),
        Fact(
            "of the base's score",
            _figure(metrics, "ratio.score_nfe1", ".0%"),
            f"base {_figure(metrics, 'reference.score')} at {_figure(metrics, 'reference.nfe', '.0f')} NFE",
        ),
        Fact("of the base's diversity", _figure(metrics, "ratio.diversity_nfe1", ".0%")),
        Fact("base at 1 NFE", _figure(metrics, "reference.nfe1.score"), "where it started"),
    )
    return tuple(figure for figure in figures if figure.value != NONE)


def _figure(metrics: Mapping[str, Any], path: str, form: str = ".3f") -> str:
    try:
        return format(metric_value(metrics, path), form)
    except UnusableMetricError:
        return NONE


def _cell(metrics: Mapping[str, Any], path: str, bar: bool) -> Cell:
    try:
        value = metric_value(metrics, path)
    except UnusableMetricError:
        return Cell(NONE)
    return Cell(f"{value:.3f}", min(max(value, 0.0), 1.0) if bar else None)


def _tasks(metrics: Mapping[str, Any], path: str) -> list[str]:
    node: Any = metrics
    for part in (*path.split("."), "tasks"):
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    return list(node)


def _by_steps(setting: str) -> tuple[int, str]:
    digits = setting.removeprefix("nfe")
    return (int(digits) if digits.isdigit() else 10**9, setting)


def _setting_title(setting: str) -> str:
    return f"{setting.removeprefix('nfe')} NFE" if setting.startswith("nfe") else setting
