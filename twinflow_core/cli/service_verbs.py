"""Verbs about the set-up: up, down, status, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from twinflow_core.cli.output import Json, find_root, print_document, print_table
from twinflow_core.errors import ExitCode


def add_to(app: typer.Typer) -> None:
    """Register these verbs."""
    for verb in (up, down, status, doctor):
        app.command()(verb)


def up(
    as_json: Json = False,
    export: Annotated[
        bool, typer.Option("--export", help="Print the variables for a shell; they hold the secrets.")
    ] = False,
) -> None:
    """Start the S3 server and the Prefect server that are not running; they stay up."""
    import shlex

    from twinflow_core.local import services

    running = services.up(find_root())
    if export:
        for name, value in sorted(running.environment().items()):
            typer.echo(f"export {name}={shlex.quote(value)}")
        return
    document = {
        "s3": running.s3.endpoint,
        "bucket": running.bucket,
        "prefect_api": running.prefect_api_url,
        "prefect_ui": running.prefect_ui_url,
    }
    if as_json:
        print_document(document)
        return
    for name, value in document.items():
        typer.echo(f"{name:12} {value}")
    typer.echo("They stay up; `twinflow down` stops them.")


def down(as_json: Json = False) -> None:
    """Stop this clone's embedded services; their data stay."""
    from twinflow_core.local import services

    stopped = services.down(find_root())
    if as_json:
        print_document({"stopped": stopped})
    else:
        typer.echo(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def status(as_json: Json = False) -> None:
    """Show which services run, where, and where their logs are."""
    from twinflow_core.local import services

    found = services.status(find_root())
    if as_json:
        print_document([asdict(service) for service in found])
        return
    rows = [(each.name, each.state, each.address, each.pid or "", each.log) for each in found]
    print_table("services", ("service", "state", "address", "pid", "log"), rows)


def doctor(as_json: Json = False) -> None:
    """Check the set-up and say what to do about each thing that is wrong."""
    from twinflow_core.local.doctor import examine

    findings = examine(find_root())
    wrong = any(finding.state == "wrong" for finding in findings)
    if as_json:
        print_document([asdict(finding) for finding in findings])
    else:
        rows = [(finding.name, finding.state, finding.found, finding.fix) for finding in findings]
        print_table("doctor", ("check", "", "found", "to do"), rows)
    raise typer.Exit(int(ExitCode.WRONG_INPUT if wrong else ExitCode.DONE))
