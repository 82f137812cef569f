"""The command's entry: its verbs, and what becomes of an error."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from twinflow_core.cli import (
    audit_verbs,
    channel_verbs,
    plan_verb,
    registry_verbs,
    run_verbs,
    service_verbs,
    serving_verbs,
)
from twinflow_core.cli.output import JSON_FLAG, print_error
from twinflow_core.errors import ExitCode, TwinflowError, unexpected
from twinflow_core.home import state_home

app = typer.Typer(
    name="twinflow",
    help="Turn a slow text-to-image model into a promoted one-step generator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verbs in (run_verbs, plan_verb, registry_verbs, channel_verbs, audit_verbs, service_verbs, serving_verbs):
    verbs.add_to(app)


def main() -> None:
    """Run one verb and exit: 0 done, 1 rejected by a gate, 2 wrong input or set-up, 3 infrastructure."""
    as_json = JSON_FLAG in sys.argv[1:]
    try:
        app()
    except TwinflowError as error:
        print_error(error, as_json)
        sys.exit(int(error.code))
    except Exception as error:
        print_error(unexpected(error, state_home(Path.cwd()) / "cli-error.log"), as_json)
        sys.exit(int(ExitCode.INFRASTRUCTURE))
