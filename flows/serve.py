"""Scheduled retraining without a worker: this process holds the deployments and starts their runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows.command import run_command
from flows.promote import approve, promote, rollback
from flows.retrain import retrain
from tasks.log import say
from twinflow_core.errors import ExitCode, TwinflowError

# A run that comes due while one is under way is cancelled: it would find the same data.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def serve_flows(root: Path, cron: str, timezone: str) -> None:
    """Serve retrain by the schedule, and approve, promote and rollback as forms, until this is stopped.

    The schedule is not paused when this process stops.

    Raises:
        TwinflowError: the schedule or the time zone cannot be read.
    """
    try:
        schedule = Cron(cron, timezone=timezone)
        scheduled = retrain.to_deployment(
            name="scheduled",
            schedule=schedule,
            parameters={"root": str(root)},
            concurrency_limit=ONE_AT_A_TIME,
        )
    except ValueError as error:
        raise TwinflowError(
            f"The schedule cannot be read: {error}",
            where=f"--cron {cron!r} --timezone {timezone!r}",
            fix='Write it as cron does, for example --cron "0 3 * * *" --timezone Europe/Berlin.',
        ) from None
    parameters = {"root": str(root)}
    by_hand = [
        each.to_deployment(name="by-hand", parameters=parameters) for each in (approve, promote, rollback)
    ]
    # Prefect's signature allows for a coroutine, which these are only inside an event loop.
    deployments = [each for each in (scheduled, *by_hand) if isinstance(each, RunnerDeployment)]
    say(f"Retraining by `{cron}` ({timezone}); Ctrl-C stops it.")
    serve(*deployments, pause_on_shutdown=False)


def _work(options: argparse.Namespace) -> tuple[Any, int]:
    serve_flows(Path.cwd(), options.cron, options.timezone)
    return {}, ExitCode.DONE


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    command.add_argument("--cron", required=True)
    command.add_argument("--timezone", default="UTC")
    run_command(command, _work)
