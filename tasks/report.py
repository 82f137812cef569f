"""The HTML report of a run, written while its working tree is still there."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.run import Run
from twinflow_core.gates.decision import Decision
from twinflow_core.report.collect import collect_report
from twinflow_core.report.context import Fact, GateResult
from twinflow_core.report.html import render_report

LONGEST_PROMPT = 100
GATE_TITLES = {"quality": "Quality gate", "serving": "Serving gate"}


@task(name="report", cache_policy=NO_CACHE)
def write_report(run: Run, decisions: Sequence[Decision], champion_samples: Path | None) -> None:
    """Write `report.html` and `grid.png` into the run's folder and note their paths in its record."""
    page, grid = run.folder / "report.html", run.folder / "grid.png"
    made = run.tree / "eval/candidate/grid.png"
    if made.exists():
        shutil.copyfile(made, grid)
        run.record.grid = str(grid)
    context = collect_report(
        run.tree,
        run=run.record.id,
        model=run.params.registry.model,
        outcome=decisions[-1].outcome if decisions else None,
        result=run.record.reason,
        mode=run.params.gates.mode,
        created=run.record.started,
        gates=[GateResult(GATE_TITLES[each.gate], each.outcome, each.outcomes) for each in decisions],
        speeds=_speeds(run),
        lineage=[Fact("commit", run.snapshot.commit), Fact("version", run.record.version or "none")],
        commands=[Fact(label, command) for label, command in next_commands(run)],
        champion_samples=champion_samples,
    )
    render_report(context, page)
    run.record.report = str(page)


def _quoted(prompt: str) -> str:
    """A prompt as the shell takes it: captions are anybody's text, and people paste these commands."""
    printable = "".join(character if character.isprintable() else " " for character in prompt)
    return shlex.quote(printable[:LONGEST_PROMPT])


def next_commands(run: Run) -> list[tuple[str, str]]:
    """What a person may want to do next: (what for, the command, as it works from the repository)."""
    record = run.record
    twinflow = "twinflow" if shutil.which("twinflow") else _from_root(run.root)
    commands = [("see all of this run", f"{twinflow} show {record.id}")]
    if record.state == "promoted":
        commands.insert(0, ("make an image", f"{twinflow} generate {_quoted(record.prompt)} --out image.png"))
        commands += _to_promote(run, twinflow, "production", "production" in run.registry.approval)
    elif record.state == "needs-approval":
        commands += _to_promote(run, twinflow, run.channel, asked=True)
    elif record.state == "published" and run.params.gates.mode == "enforce":
        commands += _to_promote(run, twinflow, run.channel, asked=False)
    commands.append(("recompute it elsewhere", f"{twinflow} reproduce {record.id}"))
    return commands


def _to_promote(run: Run, twinflow: str, channel: str, asked: bool) -> list[tuple[str, str]]:
    """The commands that bring the run's version to a channel."""
    version, why = run.record.version[:12], '--reason "why"'
    promote = (f"promote to {channel}", f"{twinflow} promote {version} --to {channel}")
    if asked:
        return [("approve it", f"{twinflow} approve {version} --channel {channel} {why}"), promote]
    return [(promote[0], f"{promote[1]} {why}")]


def _from_root(root: Path) -> str:
    command = Path(sys.executable).with_name("twinflow")
    return str(command.relative_to(root)) if command.is_relative_to(root) else str(command)


def _speeds(run: Run) -> list[Fact]:
    serving = run.record.speed.get("serving", {})
    facts = [Fact(stage.name, f"{stage.seconds:.1f} s", stage.outcome) for stage in run.record.stages]
    if serving:
        batch = f"batch {serving['batch']}, {serving['provider']}"
        facts += [
            Fact("images a second as served", f"{serving['images_per_second']:.1f}", batch),
            Fact("latency, p95", f"{serving['p95_ms']:.1f} ms", batch),
        ]
    return facts
