"""Everything a report can show. Each part is optional: a run rejected early has no export and no speeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twinflow_core.gates.decision import Mode, Outcome
from twinflow_core.gates.outcome import RuleOutcome


@dataclass(frozen=True)
class GateResult:
    """One gate: its title, its rules' outcomes, and what they came to."""

    title: str
    outcome: Outcome
    outcomes: tuple[RuleOutcome, ...]


@dataclass(frozen=True)
class Fact:
    """One line of a list: what, its value as text, and a remark."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class PromptImages:
    """A prompt and what two models made of it.

    Args:
        prompt, task: the text and its task.
        candidate, other: PNG bytes an image; images of one place share their noise.
        candidate_correct, other_correct: how many of them are correct.
        reasons: why the candidate's images are wrong, each reason once.
    """

    prompt: str
    task: str
    candidate: tuple[bytes, ...]
    other: tuple[bytes, ...]
    candidate_correct: int
    other_correct: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ReportContext:
    """What `render_report` draws.

    Args:
        run: the run's id.
        model: the model's name in the registry.
        outcome: what may happen after all gates; None for a run that came to no decision.
        result: what did happen, one sentence for people.
        mode: whether the gates were enforced.
        created: when, as text.
        gates: the gates in the order they ran.
        metrics: the merged metrics document (`gates.metrics.merged_metrics`).
        training: columns of the training log by name, `step` among them; NaN where a step has no value.
        grid: PNG of the comparison grid.
        worst: the prompts where the candidate falls behind most.
        other: what the candidate is shown beside there.
        data: `summary.json` of the prepared data.
        speeds, lineage: lists of facts.
        params: the parameters of the run as JSON values.
        commands: what to do next; `label` says what for, `value` is the command.
    """

    run: str
    model: str = ""
    outcome: Outcome | None = None
    result: str = ""
    mode: Mode = "enforce"
    created: str = ""
    gates: tuple[GateResult, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, list[float]] = field(default_factory=dict)
    grid: bytes | None = None
    worst: tuple[PromptImages, ...] = ()
    other: str = "the base at many steps"
    data: Mapping[str, Any] = field(default_factory=dict)
    speeds: tuple[Fact, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    lineage: tuple[Fact, ...] = ()
    commands: tuple[Fact, ...] = ()
