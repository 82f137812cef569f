"""Both gates: the numbers gathered, the rules applied, the decision made and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.log import say
from tasks.promote import actor
from tasks.run import Run
from tasks.served import Served, candidate_once_more, evaluator_hash, serve_candidate, serve_champion
from twinflow_core.evaluation.samples import samples_at
from twinflow_core.gates.checks import rules_of
from twinflow_core.gates.decision import Decision, Mode, make_decision
from twinflow_core.gates.evidence import Evidence, Measurements
from twinflow_core.gates.looks import judge_in_looks
from twinflow_core.gates.metrics import GateName, merged_metrics
from twinflow_core.gates.samples import as_candidate, at_size, prompts_hash, read_scores
from twinflow_core.params import Rule
from twinflow_core.registry.channel import ChannelState


@dataclass(frozen=True)
class Verdict:
    """A gate's decision, and the champion's samples if there is a champion."""

    decision: Decision
    champion_samples: Path | None


@task(name="quality gate", cache_policy=NO_CACHE)
def judge_quality(run: Run, against: str | None = None, why: str = "") -> Verdict:
    """Judge the candidate's evaluation against the rules, and against the champion as it is now.

    Args:
        run: the run.
        against: a version to compare with in the champion's place. Such a decision is a comparison: it is made
            as in a dry run, as the channel does not serve that version.
        why: what it is judged for; the run itself unless told.
    """
    metrics = merged_metrics(_json(run.tree / "eval/candidate/metrics.json"))
    run.record.metrics = metrics
    scores = read_scores(run.tree / "eval/candidate/samples.parquet")
    run.record.prompt = next(iter(scores.values())).prompts[0]
    rules = rules_of(run.params.gates, "quality", metrics)
    state = run.registry.head(run.channel)
    ground = _Ground(state, run.params.gates.mode, why or f"run {run.record.id}")
    if against is not None:
        ground = _Ground(replace(state, version=against), "dry-run", ground.why)
    return _judge(run, "quality", rules, metrics, run.output_hash("models/candidate"), ground)


@task(name="serving check", cache_policy=NO_CACHE)
def check_serving(run: Run) -> Served:
    """Have the exported package draw in a fresh process without torch, time it, and score what it drew."""
    served = serve_candidate(run)
    run.record.speed["serving"] = served.serving
    return served


@task(name="serving gate", cache_policy=NO_CACHE)
def judge_serving(run: Run, served: Served, quality: Decision, version: str | None) -> Verdict:
    """Judge the package that will serve.

    Args:
        run: the run.
        served: what the package drew and how fast.
        quality: the decision before; this one comes to nothing better.
        version: what the package was published as; None before it is.
    """
    fewest = next(iter(served.metrics["candidate"]))
    serving = {
        **served.serving,
        "score": served.metrics["candidate"][fewest]["score"],
        "score_difference": served.metrics["difference"].get(fewest),
        "diversity_ratio": served.metrics["diversity_ratio"].get(fewest),
    }
    evaluation = _json(run.tree / "eval/candidate/metrics.json")
    metrics = merged_metrics(evaluation, _json(run.tree / "export/parity.json"), serving)
    run.record.metrics = metrics
    rules = run.params.gates.serving
    # Against what the quality gate saw: promotion finds out if that is history.
    state = ChannelState(quality.generation, quality.champion, held=False)
    ground = _Ground(state, quality.mode, quality.why, quality, version)
    return _judge(run, "serving", rules, metrics, run.output_hash("export"), ground, served)


@task(name="record decisions", cache_policy=NO_CACHE)
def keep_decisions(run: Run, decisions: Sequence[Decision]) -> str:
    """Put the decision of each gate into the registry; gives the id of the last, which is what counts."""
    identity = ""
    for decision in decisions:
        document = decision.document()
        document.pop("id")
        identity = run.registry.record_decision(document)
    return identity


@dataclass(frozen=True)
class _Ground:
    """What a gate's decision stands on: the channel's state, the mode, why, the gate before, the version."""

    state: ChannelState
    mode: Mode
    why: str
    before: Decision | None = None
    version: str | None = None


def _judge(
    run: Run,
    gate: GateName,
    rules: tuple[Rule, ...],
    metrics: dict[str, Any],
    judged: str,
    ground: _Ground,
    served: Served | None = None,
) -> Verdict:
    gates, state = run.params.gates, ground.state
    evaluations = (run.tree / "eval/reference", run.tree / "eval/candidate")
    scores = read_scores(served.samples) if served else {}
    for folder in evaluations:
        scores |= read_scores(folder / "samples.parquet")
        for size in metrics.get("sizes", ()):
            scores |= at_size(read_scores(samples_at(folder, size)), size)
    champion = None
    champion_samples = None
    if state.version is not None:
        theirs = serve_champion(run, state.version)
        champion = Measurements(theirs.metrics, as_candidate(read_scores(theirs.samples)))
        champion_samples = theirs.samples
    second: list[Evidence] = []

    def draw_more(settings: Sequence[str]) -> Evidence:
        second.append(_larger_set(run, settings, state.version))
        return second[0]

    outcomes = judge_in_looks(
        rules,
        Evidence(Measurements(metrics, scores), champion),
        draw_more if run.params.larger_evaluation() else None,
        resamples=gates.resamples,
        seed=run.params.evaluate.seed,
        on_no_champion=gates.on_no_champion,
    )
    decision = make_decision(
        model=run.params.registry.model,
        run=run.record.id,
        judged=judged,
        candidate=ground.version,
        gate=gate,
        mode=ground.mode,
        outcomes=outcomes,
        channel=run.channel,
        generation=state.generation,
        champion=state.version,
        on_no_champion=gates.on_no_champion,
        on_inconclusive=gates.on_inconclusive,
        rules=rules,
        prompts_hash=prompts_hash(scores, *(each.candidate.scores for each in second)),
        evaluator_hash=evaluator_hash(run),
        seed=run.params.evaluate.seed,
        resamples=gates.resamples,
        actor=actor(),
        why=ground.why,
        created=datetime.now(UTC),
        builds_on=ground.before,
    )
    return Verdict(decision, champion_samples)


def _larger_set(run: Run, settings: Sequence[str], version: str | None) -> Evidence:
    """The candidate and the champion on the second look's prompts, at these few-step settings."""
    say(f"  The images leave a rule open: more are drawn ({', '.join(settings)}).")
    steps = sorted(int(each.removeprefix("nfe")) for each in settings)
    samples, metrics = candidate_once_more(run, steps)
    champion = None
    if version is not None:
        theirs = serve_champion(run, version, larger=steps)
        champion = Measurements(theirs.metrics, as_candidate(read_scores(theirs.samples)))
    return Evidence(Measurements(metrics, read_scores(samples)), champion)


def _json(path: Path) -> dict[str, Any]:
    """A document of a stage; one of an older run may hold NaN, which no record can: it is read as None."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    return document
