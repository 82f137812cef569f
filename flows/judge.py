"""Judge a candidate against a champion by the gates' rules: a table, a record, an exit code. Moves nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prefect import flow
from rich.console import Console

from flows.command import run_command
from tasks.candidates import IN_THIS_CLONE, SERVING_STAGE, open_candidate, up_to_date
from tasks.judge import check_serving, judge_quality, judge_serving, keep_decisions
from tasks.log import say
from tasks.report import GATE_TITLES
from tasks.run import Run
from twinflow_core.errors import ExitCode
from twinflow_core.gates.checks import check_rules
from twinflow_core.gates.decision import Decision
from twinflow_core.gates.table import gate_table
from twinflow_core.local.services import up
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.registry.lookup import find_version
from twinflow_core.registry.s3 import make_s3_client
from twinflow_core.registry.store import ObjectStore

WIDTH = 100


@flow(name="judge", persist_result=False)
def judge(
    candidate: str = IN_THIS_CLONE, against: str = "", reason: str = "", root: str = "."
) -> dict[str, Any]:
    """Judge a candidate by both gates, as far as it was exported, and keep the decisions.

    Args:
        candidate: `eval/candidate` for this clone's own evaluation, a run, or a version.
        against: a version, or its beginning, to compare with; empty for what the channel serves. A comparison
            with another version than the channel's can promote nothing.
        reason: what it is judged for; it stays in the record.
        root: the repository.

    Returns:
        The last gate's outcome, the stored decision's id, and every decision.

    Raises:
        TwinflowError: nothing fits `candidate` or `against`, or there is nothing that can be judged.
        InfrastructureError: a service failed.
    """
    top = Path(root).resolve()
    check_rules(load_params(top / PARAMS_FILE))
    services = up(top, say)
    store = ObjectStore(make_s3_client(services.s3), services.bucket)
    with open_candidate(top, candidate, services, store) as run:
        other = find_version(run.registry, against) if against else None
        if other == run.registry.head(run.channel).version:
            other = None
        decisions = _judge(run, other, reason or f"twinflow judge {candidate}")
        identity = keep_decisions(run, decisions)
    return {
        "candidate": candidate,
        "outcome": decisions[-1].outcome,
        "decision": identity,
        "decisions": [each.document() for each in decisions],
    }


def _judge(run: Run, against: str | None, reason: str) -> list[Decision]:
    quality = judge_quality(run, against, reason).decision
    if quality.outcome == "reject":
        return [quality]
    if not up_to_date(run, SERVING_STAGE):
        say("It was not exported: the quality gate alone judges it.")
        return [quality]
    # What is only compared is no candidate for promotion, so the record does not name its version as one.
    version = run.record.version if against is None and run.record.version else None
    return [quality, judge_serving(run, check_serving(run), quality, version).decision]


def _work(options: argparse.Namespace) -> tuple[Any, int]:
    document = judge(options.candidate, options.against, options.reason)
    console = Console(width=max(WIDTH, Console().width))
    for each in document["decisions"]:
        outcomes = Decision.model_validate(each).outcomes
        console.print(gate_table(outcomes, f"{GATE_TITLES[each['gate']]}: {each['outcome']}"))
    last = document["decisions"][-1]
    against = (last["champion"] or "nothing")[:12]
    print(
        f"Decision: {last['outcome']}, against {against} (generation {last['generation']} of {last['channel']})."
    )
    print(f"Recorded as {document['decision']}; nothing was moved.")
    return document, ExitCode.DONE if document["outcome"] == "promote" else ExitCode.REJECTED


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m flows.judge", description=__doc__)
    command.add_argument("candidate", nargs="?", default=IN_THIS_CLONE)
    command.add_argument("--against", default="")
    command.add_argument("--reason", default="")
    run_command(command, _work)
