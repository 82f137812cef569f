"""The gate table for a terminal, and its cells as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from twinflow_core.gates.outcome import RuleOutcome, SliceOutcome, Status

STATUS_STYLE: dict[Status, str] = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "WARN": "bold yellow",
    "INCONCLUSIVE": "bold yellow",
    "ERROR": "bold magenta",
}


def gate_table(outcomes: Sequence[RuleOutcome], title: str) -> RenderableType:
    """One row a rule; under them why, for every rule that did not simply pass on its numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("asked", overflow="fold")
    table.add_column("interval", no_wrap=True)
    for outcome in outcomes:
        style = STATUS_STYLE[outcome.status]
        table.add_row(
            rule_text(outcome),
            Text(outcome.status, style=style),
            value_text(outcome),
            asked_text(outcome),
            interval_text(outcome),
        )
    told = [outcome for outcome in outcomes if outcome.status != "PASS" or outcome.decided_by == "policy"]
    lines = [Text(f"{outcome.id}: {outcome.reason}") for outcome in told]
    more = [outcome.id for outcome in outcomes if outcome.look == 2]
    if more:
        lines.append(Text(f"Decided on more images, drawn for it: {', '.join(more)}."))
    return Group(table, *lines)


def rule_text(outcome: RuleOutcome) -> str:
    """The rule's id; a rule that only warns says so."""
    return outcome.id if outcome.severity == "required" else f"{outcome.id} (warns)"


def value_text(outcome: RuleOutcome) -> str:
    """What is held against the bound: the metric, or for a margin candidate minus champion; `-` for none."""
    if outcome.value is None:
        return "-"
    return f"{outcome.value:+.4f}" if outcome.kind == "margin" else f"{outcome.value:.4g}"


def asked_text(outcome: RuleOutcome) -> str:
    """What the rule asks for, as `≥ 0.8` or `≥ champion - 0.03`."""
    if outcome.bound is None:
        return "-"
    if outcome.kind == "margin":
        sign, operator = ("≥", "-") if outcome.better == "higher" else ("≤", "+")
        return f"{sign} champion {operator} {abs(outcome.bound):.4g}"
    return f"{'≥' if outcome.kind == 'min' else '≤'} {outcome.bound:.4g}"


def interval_text(outcome: RuleOutcome) -> str:
    """The interval of the value; `-` where there is none."""
    return _span(outcome, outcome.low, outcome.high)


def slice_text(outcome: RuleOutcome, each: SliceOutcome) -> str:
    """A slice's value and interval, in the form of its rule's."""
    sign = "+" if outcome.kind == "margin" else ""
    return f"{each.value:{sign}.3f} ({_span(outcome, each.low, each.high)})"


def _span(outcome: RuleOutcome, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "-"
    sign = "+" if outcome.kind == "margin" else ""
    return f"{low:{sign}.3f} .. {high:{sign}.3f}"
