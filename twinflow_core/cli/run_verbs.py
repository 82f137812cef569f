"""Verbs about runs: retrain, judge, serve, runs, show, report, reproduce, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinflow_core.cli.child import run_flow
from twinflow_core.cli.output import Json, find_root, print_document, print_table
from twinflow_core.errors import TwinflowError

RunId = Annotated[str, typer.Argument(help="A run's id, or the beginning or end of it.")]


def add_to(app: typer.Typer) -> None:
    """Register these verbs."""
    for verb in (retrain, judge, serve, runs, show, report, reproduce, pretrain):
        app.command()(verb)


def retrain(as_json: Json = False) -> None:
    """Run the pipeline once: train, judge, export, publish, promote."""
    root = find_root()
    _check_first(root)
    run_flow(root, "retrain", [], _services(root), as_json)


def judge(
    candidate: Annotated[
        str, typer.Argument(help="A run, a version, or eval/candidate: what `dvc repro` made in this clone.")
    ] = "eval/candidate",
    against: Annotated[
        str, typer.Option(help="A version to compare with; without it, what the channel serves.")
    ] = "",
    reason: Annotated[str, typer.Option(help="What it is judged for; it stays in the record.")] = "",
    as_json: Json = False,
) -> None:
    """Judge a candidate by the gates and record the decision; moves nothing. Exits 0 if it may be promoted, else 1."""
    from twinflow_core.gates.checks import check_rules
    from twinflow_core.params import PARAMS_FILE, load_params

    root = find_root()
    check_rules(load_params(root / PARAMS_FILE))
    arguments = [candidate, "--against", against, "--reason", reason]
    run_flow(root, "judge", arguments, _services(root), as_json)


def serve(
    cron: Annotated[str, typer.Option(help="When to run, as cron says it.")] = "0 3 * * *",
    timezone: Annotated[str, typer.Option(help="The time zone of --cron.")] = "UTC",
) -> None:
    """Run the pipeline on a schedule until this is stopped; one run at a time."""
    root = find_root()
    _check_first(root)
    run_flow(root, "serve", ["--cron", cron, "--timezone", timezone], _services(root), as_json=False)


def runs(as_json: Json = False) -> None:
    """List the runs of this clone and of the bucket."""
    from twinflow_core.local.services import open_store
    from twinflow_core.run_record import all_records

    root = find_root()
    records = all_records(root, open_store(root))
    if as_json:
        print_document([record.as_dict() for record in records])
        return
    print_table(
        "runs",
        ("run", "state", "started", "score", "of base", "version"),
        [
            (
                record.id,
                record.state,
                record.started,
                _number(record.metrics, "candidate", "nfe1", "score"),
                _number(record.metrics, "ratio", "score_nfe1"),
                record.version[:12],
            )
            for record in records
        ],
    )


def show(run: RunId, as_json: Json = False) -> None:
    """Show one run: state, decision, rules, stages, where its files are."""
    from twinflow_core.local.services import open_store
    from twinflow_core.run_record import find_record

    root = find_root()
    record = find_record(root, open_store(root), run)
    if as_json:
        print_document(record.as_dict())
        return
    for name in (
        "id",
        "state",
        "reason",
        "started",
        "finished",
        "commit",
        "version",
        "decision_id",
        "channel",
    ):
        if value := getattr(record, name):
            typer.echo(f"{name:12} {value}")
    if record.error:
        typer.echo(f"{'error':12} {TwinflowError(record.error['what'], where=record.error['where'])}")
    print_table("stages", ("stage", "", "seconds"), [(s.name, s.outcome, s.seconds) for s in record.stages])
    if record.gates:
        print_table(
            "gates",
            ("rule", "metric", "status", "why"),
            [(rule["id"], rule["metric"], rule["status"], rule["reason"]) for rule in record.gates],
        )
    for name in ("report", "grid", "log"):
        if value := getattr(record, name):
            typer.echo(f"{name:12} {value}")


def report(
    run: RunId,
    out: Annotated[Path | None, typer.Option(help="Where to write it, if it comes from the bucket.")] = None,
    as_json: Json = False,
) -> None:
    """Give the path of a run's HTML report; fetch it from the bucket if it is not here."""
    from twinflow_core.local.services import open_store
    from twinflow_core.run_record import find_record, run_folder, run_key

    root = find_root()
    store = open_store(root)
    record = find_record(root, store, run)
    path = run_folder(root, record.id) / "report.html"
    if out is not None or not path.exists():
        path = out or path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(run_key(record.id, "report.html")))
    print_document({"report": str(path)}) if as_json else typer.echo(path)


def reproduce(run: RunId, as_json: Json = False) -> None:
    """Recompute a run from its record in the bucket and say how exactly it agrees."""
    root = find_root()
    run_flow(root, "reproduce", [run], _services(root), as_json)


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the base model.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on; `-- --help` lists them.")] = None,
) -> None:
    """Train a base model of the shapes world from scratch, as the bundled one was."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "twinflow_core.pretrain", "--out", str(out), *(arguments or [])]
    raise typer.Exit(subprocess.run(command, cwd=find_root(), check=False).returncode)


def _check_first(root: Path) -> None:
    """Tell of wrong parameters, a wrong clone or a missing git before any service is started."""
    import shutil

    from twinflow_core.data.s3_source import is_in_bucket
    from twinflow_core.gates.checks import check_rules
    from twinflow_core.params import PARAMS_FILE, load_params

    params = load_params(root / PARAMS_FILE)
    check_rules(params)
    if shutil.which("git") is None:
        raise TwinflowError(
            "git is not installed.",
            where="PATH",
            fix="Install git (for example: apt install git): every run is recorded as a commit.",
        )
    source = root / params.data.source
    if not is_in_bucket(params.data.source) and not source.is_dir():
        raise TwinflowError(
            "The folder of images does not exist.",
            where=f"params.yaml: data.source = {params.data.source}",
            fix=f"Create {source}, or point data.source at your folder of images.",
        )


def _services(root: Path) -> dict[str, str]:
    from twinflow_core.local.services import up

    return up(root).environment()


def _number(document: dict[str, object], *path: str) -> str:
    node: object = document
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return f"{node:.3f}" if isinstance(node, float) else ""
