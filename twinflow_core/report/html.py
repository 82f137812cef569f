"""The HTML report of a run: one file, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from twinflow_core.gates.table import asked_text, interval_text, rule_text, slice_text, value_text
from twinflow_core.report.context import ReportContext
from twinflow_core.report.curves import training_curves
from twinflow_core.report.interval_picture import interval_picture
from twinflow_core.report.tables import key_figures, score_table


def render_report(context: ReportContext, path: Path) -> None:
    """Write the report, whole or not at all.

    Args:
        context: what there is to show.
        path: the HTML file to write; its folder is made.
    """
    parameters = yaml.safe_dump(dict(context.params), sort_keys=False, width=100) if context.params else ""
    html = _template().render(
        report=context,
        figures=key_figures(context.metrics),
        scores=score_table(context.metrics),
        curves=training_curves(context.training),
        parameters=parameters,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(html, encoding="utf-8")
    os.replace(temporary, path)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("twinflow_core.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "asked_text": asked_text,
        "interval_picture": interval_picture,
        "interval_text": interval_text,
        "rule_text": rule_text,
        "slice_text": slice_text,
        "value_text": value_text,
    }
    environment.filters |= {"extent": _extent, "png": _png, "svg": _svg}
    return environment.get_template("report.html.j2")


def _extent(sides: Mapping[str, int]) -> str:
    """The smallest and the largest of some sides, as one number if they are the same."""
    return f"{sides['min']}" if sides["min"] == sides["max"] else f"{sides['min']}–{sides['max']}"


def _png(image: bytes) -> Markup:
    return Markup(f"data:image/png;base64,{base64.b64encode(image).decode()}")


def _svg(image: bytes) -> Markup:
    return Markup(f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}")
