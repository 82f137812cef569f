"""The report: every part optional, nothing fetched, nothing unescaped."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.report.context import Fact, GateResult, PromptImages, ReportContext
from twinflow_core.report.grid import GridRow, comparison_grid
from twinflow_core.report.html import render_report

HOSTILE = "<script>alert('x')</script>"
IMAGE = comparison_grid([GridRow("x", [np.zeros((8, 8, 3), np.uint8)], [])])
BASE = {"severity": "required", "decided_by": "interval", "reason": HOSTILE}
OUTCOMES = tuple(
    RuleOutcome.model_validate(BASE | fields)
    for fields in (
        {"id": "score", "metric": "candidate.nfe1.score", "kind": "min", "status": "PASS", "value": 0.8,
         "candidate": 0.8, "bound": 0.5, "low": 0.7, "high": 0.9, "level": 0.95},
        {"id": "not-worse", "metric": "candidate.nfe1.score", "kind": "margin", "status": "INCONCLUSIVE",
         "value": -0.01, "candidate": 0.8, "champion": 0.81, "bound": -0.03, "low": -0.04, "high": 0.02,
         "level": 0.95, "look": 2, "slice": HOSTILE, "slices": [
             {"name": HOSTILE, "value": -0.01, "low": -0.04, "high": 0.02, "candidate": 0.8, "champion": 0.81,
              "prompts": 16, "images": 64}]},
        {"id": "gone", "metric": "ratio.score_nfe1", "kind": "min", "status": "ERROR", "bound": 0.8},
    )
)  # fmt: skip
FULL = ReportContext(
    run="20260102-030405-abcd",
    model="shapes",
    outcome="needs-approval",
    result=f"It waits {HOSTILE}",
    mode="dry-run",
    created="2026-01-02",
    gates=(GateResult("Quality gate", "needs-approval", OUTCOMES),),
    metrics={
        "scorer": "shapes",
        "reference": {"nfe": 100, "score": 0.9, "tasks": {"counting": 0.9}, "nfe1": {"score": float("nan")}},
        "candidate": {"nfe1": {"score": 0.8, "tasks": {"counting": 0.7, HOSTILE: 0.1}, "diversity": 0.2}},
        "ratio": {"score_nfe1": 0.889},
    },
    training={"step": [1.0, 2.0], "loss": [0.5, 0.25], "loss_fake": [float("nan"), 0.1], "flat": [0.0, 0.0]},
    grid=IMAGE,
    worst=(PromptImages(HOSTILE, "counting", (IMAGE,), (IMAGE,), 0, 1, (HOSTILE,)),),
    data={
        "rows": 10,
        "usable": 8,
        "rejected": {"damaged": 2, "too small": 0},
        "splits": {"train": 8},
        "width": {"min": 16, "max": 16},
        "height": {"min": 16, "max": 20},
    },
    speeds=(Fact("ONNX Runtime", "800 images/s", "batch 4"),),
    params={"data": {"source": HOSTILE}},
    lineage=(Fact("git commit", "abc"),),
    commands=(Fact("Generate", 'twinflow generate "a red circle" --out x.png'),),
)
PARTS = [field.name for field in dataclasses.fields(ReportContext) if field.name != "run"]


class Links(HTMLParser):
    """Every address and every tag of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def rendered(context: ReportContext, folder: Path) -> str:
    path = folder / "new" / "report.html"
    render_report(context, path)
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_shows_every_part(tmp_path: Path) -> None:
    html = rendered(FULL, tmp_path)
    for text in (
        "needs approval",
        "dry run",
        "INCONCLUSIVE",
        "89%",
        "damaged",
        "800 images/s",
        "Decided on more images",
        "-0.010 (-0.040 .. +0.020)",
        "Training",
        "16 × 16–20",
    ):
        assert text in html
    assert html.count('class="interval-picture"') == 2
    assert "too small" not in html


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    page = Links()
    page.feed(rendered(FULL, tmp_path))
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe"}
    assert not re.search(r"url\(|@import", rendered(FULL, tmp_path))


@pytest.mark.parametrize("part", PARTS)
def test_any_part_may_be_missing(part: str, tmp_path: Path) -> None:
    empty = getattr(ReportContext(run="r"), part)
    assert FULL.run in rendered(dataclasses.replace(FULL, **{part: empty}), tmp_path)


def test_all_parts_may_be_missing(tmp_path: Path) -> None:
    html = rendered(ReportContext(run="r"), tmp_path)
    assert "no decision" in html
    assert "<section>" not in html


def test_metrics_of_unexpected_shape_do_not_stop_it(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [{"candidate": None}, {"candidate": {}, "reference": {}}, {"ratio": 3}]
    for metrics in odd:
        rendered(dataclasses.replace(FULL, metrics=metrics), tmp_path)
