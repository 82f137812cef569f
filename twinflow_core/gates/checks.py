"""Every rule checked before anything is trained: a slip in a gate costs a second, not a night."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twinflow_core.data.shapes_world import evaluation_prompts
from twinflow_core.errors import TwinflowError
from twinflow_core.gates.estimates import estimand_of
from twinflow_core.gates.looks import LOOKS
from twinflow_core.gates.metrics import GateName, Scorer, at_size, is_at_every_size, known_metrics
from twinflow_core.gates.statistics import least_resamples
from twinflow_core.params import PARAMS_FILE, GatesParams, Params, Rule


def check_rules(params: Params, where: str = PARAMS_FILE) -> None:
    """Check the rules of both gates, for whichever scorer may come to use them.

    Args:
        params: all of them; the metrics that exist depend on `evaluate`.
        where: the file that errors name.

    Raises:
        TwinflowError: an unknown metric or slice (with near matches), an id used twice, a margin on a metric
            that has no interval or beside a bound, min above max, slices of a metric that has none or with
            too few prompts, or too few resamples for a rule's confidence.
    """
    sizes = [str(size) for size in params.other_sizes]
    for key, gate, scorer, listed in _lists(params):
        known = known_metrics(gate, scorer, params.evaluate.few_steps, sizes)
        rules = at_every_size(listed, sizes) if gate == "quality" else listed
        seen: set[str] = set()
        for index, rule in enumerate(rules):
            place = f"{where}: {key}.{index} (id {rule.id})"
            if rule.id in seen:
                raise TwinflowError(
                    f"Two rules of one gate have the id `{rule.id}`.", where=place, fix="Rename one of them."
                )
            seen.add(rule.id)
            if rule.metric not in known:
                raise _unknown_metric(rule, gate, known, place)
            _check_bounds(rule, place)
            if rule.slices is not None:
                _check_slices(rule, rule.slices, scorer, params, place)
        _check_resamples(rules, params, f"{where}: gates.resamples")


def rules_of(gates: GatesParams, gate: GateName, metrics: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a gate; those of the quality gate by the scorer and for the sizes that the metrics have.

    Raises:
        TwinflowError: the metrics name no scorer that there are rules for.
    """
    if gate == "serving":
        return gates.serving
    scorer, sizes = metrics.get("scorer"), tuple(metrics.get("sizes", ()))
    if scorer == "shapes":
        return at_every_size(gates.quality.shapes, sizes)
    if scorer == "distribution":
        return at_every_size(gates.quality.distribution, sizes)
    raise TwinflowError(
        f"There are no rules for the scorer {scorer!r}.",
        where="eval/candidate/metrics.json: scorer",
        fix="Run the evaluate stage again.",
    )


def at_every_size(rules: Sequence[Rule], sizes: Sequence[str]) -> tuple[Rule, ...]:
    """The rules, and for each other size one more of every bound on the candidate at few steps.

    No margin is held there, as the champion is not drawn there; nor a bound on a metric that has a rule of its own
    at that size.
    """
    own = {rule.metric for rule in rules}
    more = [
        rule.model_copy(update={"id": f"{rule.id}@{size}", "metric": metric})
        for size in sizes
        for rule in rules
        if rule.champion_margin is None
        and is_at_every_size(rule.metric)
        and (metric := at_size(rule.metric, size)) not in own
    ]
    return (*rules, *more)


def _lists(params: Params) -> Iterator[tuple[str, GateName, Scorer, Sequence[Rule]]]:
    """Every list of rules with the scorer whose metrics it may name."""
    yield "gates.quality.shapes", "quality", "shapes", params.gates.quality.shapes
    yield "gates.quality.distribution", "quality", "distribution", params.gates.quality.distribution
    # With `auto` only a metric that both scorers give is sure to be there when the serving gate looks for it.
    scorer: Scorer = "shapes" if params.evaluate.scorer == "shapes" else "distribution"
    yield "gates.serving", "serving", scorer, params.gates.serving


def _unknown_metric(rule: Rule, gate: GateName, known: Sequence[str], place: str) -> TwinflowError:
    close = difflib.get_close_matches(rule.metric, known, n=3, cutoff=0.6)
    fix = f"Did you mean {' or '.join(f'`{each}`' for each in close)}?" if close else ""
    return TwinflowError(
        f"The {gate} gate knows no metric `{rule.metric}`.",
        where=place,
        fix=fix or f"Name one of: {', '.join(known)}.",
    )


def _check_bounds(rule: Rule, place: str) -> None:
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        raise TwinflowError(
            f"No value is at least {rule.min} and at most {rule.max}.", where=place, fix="Swap min and max."
        )
    if rule.champion_margin is None:
        return
    if rule.min is not None or rule.max is not None:
        raise TwinflowError(
            "A rule bounds the value or its distance to the champion, not both.",
            where=place,
            fix="Make two rules of it.",
        )
    estimand = estimand_of(rule.metric)
    at_square = estimand is not None and "@" not in estimand.of[1]
    if estimand is None or not at_square or estimand.of[0] != "candidate" or estimand.contrast != "none":
        raise TwinflowError(
            f"`{rule.metric}` has no interval against the champion, which champion_margin is decided on.",
            where=place,
            fix="Use a candidate's score or task, as `candidate.nfe1.score`, or bound it by min or max.",
        )


def _check_slices(rule: Rule, slices: Sequence[str], scorer: Scorer, params: Params, place: str) -> None:
    """Refuse slices that will not be there when the rule is judged, or have too few prompts for an interval."""
    estimand = estimand_of(rule.metric)
    if scorer != "shapes" or estimand is None:
        raise TwinflowError(
            f"`{rule.metric}` has no slices here: "
            + ("it is no score." if estimand is None else "only the shapes scorer judges single images."),
            where=place,
            fix="Remove `slices`, or use a score under the shapes scorer (evaluate.scorer: shapes).",
        )
    count = params.evaluate.prompts_per_task
    if rule.metric.startswith("serving."):
        count = min(count, params.serving.rescore_prompts_per_task)
    prompts = evaluation_prompts(count, params.evaluate.seed)
    tasks, groups = (
        Counter(prompt[key] for prompt in prompts if estimand.task in (None, prompt["tag"]))
        for key in ("tag", "slice")
    )
    known = {**tasks, **groups}
    for name in slices:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2)
            raise TwinflowError(
                f"No prompt of `{rule.metric}` belongs to a slice `{name}`.",
                where=place,
                fix=f"Did you mean {' or '.join(f'`{each}`' for each in close)}?"
                if close
                else f"Name some of: {', '.join(known)}.",
            )
        if known[name] < 2:
            raise TwinflowError(
                f"The slice `{name}` has one prompt, so that it has no interval.",
                where=place,
                fix="Raise evaluate.prompts_per_task.",
            )
    if len(set(slices)) < len(slices) or len({name in tasks for name in slices}) > 1:
        raise TwinflowError(
            "The slices of a rule overlap.",
            where=place,
            fix=f"Name each once, and either tasks ({', '.join(tasks)}) or groups ({', '.join(groups)}).",
        )


def _check_resamples(rules: Sequence[Rule], params: Params, place: str) -> None:
    """Holm's correction, looks and slices divide 1 - confidence by the number of each."""
    resamples = params.gates.resamples
    for severity in ("required", "warn"):
        family = [
            rule
            for rule in rules
            if rule.severity == severity
            and (rule.champion_margin is not None or rule.decide_on == "interval")
            and estimand_of(rule.metric) is not None
        ]
        for rule in family:
            parts = len(rule.slices) if rule.slices is not None and rule.reduce == "worst" else 1
            strictest = 1.0 - (1.0 - rule.confidence) / (len(family) * parts * LOOKS)
            least = least_resamples(strictest)
            if resamples < least:
                raise TwinflowError(
                    f"{resamples} resamples are too few for a confidence of {strictest:.6g}, which rule "
                    f"`{rule.id}` needs among {len(family)} rules that an interval decides.",
                    where=place,
                    fix=f"Raise it to at least {least}.",
                )
