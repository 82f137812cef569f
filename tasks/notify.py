"""What people see of a run: the end on the terminal, tables and pictures in Prefect's UI."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from rich.console import Console

from tasks.report import GATE_TITLES, next_commands
from tasks.run import Run
from twinflow_core.gates.decision import Decision
from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.gates.table import (
    asked_text,
    gate_table,
    interval_text,
    rule_text,
    value_text,
)
from twinflow_core.run_record import RunRecord

LARGEST_PICTURE_BYTES = 1_000_000
NARROWEST = 100


@task(name="notify", cache_policy=NO_CACHE)
def notify(run: Run, decisions: Sequence[Decision]) -> None:
    """Put the gate table and the grid of images into Prefect as artifacts."""
    model = run.params.registry.model
    parts = [f"# {run.record.state}: {run.record.reason}", f"Run `{run.record.id}` of `{model}`"]
    for decision in decisions:
        parts += [f"## {GATE_TITLES[decision.gate]}: {decision.outcome}", _markdown(decision.outcomes)]
    create_markdown_artifact("\n\n".join(parts), key=f"gates-{model}", description=run.record.reason)
    grid = Path(run.record.grid) if run.record.grid else None
    if grid is not None and grid.stat().st_size <= LARGEST_PICTURE_BYTES:
        url = f"data:image/png;base64,{base64.b64encode(grid.read_bytes()).decode()}"
        create_image_artifact(url, key=f"grid-{model}", description="base at many steps | candidate at one")


def print_end(run: Run, decisions: Sequence[Decision]) -> None:
    """The end of a run on standard output: gate tables, decision, what to open, what to do next."""
    console = Console(soft_wrap=False)
    if console.width < NARROWEST and not sys.stdout.isatty():
        console.width = NARROWEST
    for decision in decisions:
        console.print(gate_table(decision.outcomes, f"{GATE_TITLES[decision.gate]}: {decision.outcome}"))
    lines = [f"Decision: {run.record.state}. {run.record.reason}", ""]
    if run.record.report:
        lines.append(f"  open the report   {run.record.report}")
    if run.record.grid:
        lines.append(f"  open the images   {run.record.grid}  (the base at many steps beside one step)")
    lines += [f"  {label:22} {command}" for label, command in next_commands(run)]
    print("\n".join(lines))


def print_nothing_to_do(record: RunRecord) -> None:
    """Say that the decision of an earlier run stands."""
    print(f"Nothing to do: no data, parameter or code changed since run {record.id}.")
    print(f"Its decision stands: {record.state}. {record.reason}")
    if record.report:
        print(f"  report   {record.report}")


def _markdown(outcomes: Sequence[RuleOutcome]) -> str:
    lines = ["| rule | status | value | asked | interval | why |", "|---|---|---|---|---|---|"]
    for each in outcomes:
        cells = (rule_text(each), each.status, value_text(each), asked_text(each), interval_text(each))
        lines.append(f"| {' | '.join(cells)} | {each.reason.replace('|', '/')} |")
    return "\n".join(lines)
