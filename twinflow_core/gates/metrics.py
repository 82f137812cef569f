"""The one metrics document that rules read, which paths it can hold, and how a number is taken from it.

A path is dotted, `candidate.nfe1.score`. Whatever is not one finite number at its path is unusable: a rule
on it ends in ERROR, never in PASS.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal

Scorer = Literal["shapes", "distribution"]
GateName = Literal["quality", "serving"]

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PARITY_METRICS = ("parity.max_abs", "parity.psnr", "parity.finite")
SERVING_METRICS = (
    "serving.finite",
    "serving.score",
    "serving.score_difference",
    "serving.diversity_ratio",
    "serving.p50_ms",
    "serving.p95_ms",
    "serving.images_per_second",
    "serving.rss_mb",
)


class UnusableMetricError(Exception):
    """Why a metric gives no number: missing, not finite, or not a number. Becomes a rule's ERROR."""


def merged_metrics(
    evaluation: Mapping[str, Any],
    parity: Mapping[str, Any] | None = None,
    serving: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One document of `eval/candidate/metrics.json`, `export/parity.json` and what the serving gate measured.

    Args:
        evaluation: holds `reference`, `candidate`, `ratio` and `scorer`.
        parity: the ONNX package against torch; None before export.
        serving: the package as it serves, keys of `SERVING_METRICS`; None before export.

    Raises:
        ValueError: `evaluation` already holds `parity` or `serving`.
    """
    taken = {"parity", "serving"} & set(evaluation)
    if taken:
        raise ValueError(f"the evaluation's metrics cannot hold {sorted(taken)}")
    later = {"parity": parity, "serving": serving}
    return {**evaluation, **{key: value for key, value in later.items() if value is not None}}


def metric_value(document: Mapping[str, Any], path: str) -> float:
    """The finite number at a dotted path.

    Raises:
        UnusableMetricError: nothing is there, or it is not one finite number (bool and text are not numbers).
    """
    node: Any = document
    walked: list[str] = []
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            place = f"`{'.'.join(walked)}`" if walked else "the metrics"
            raise UnusableMetricError(f"{path} is missing: {place} holds no `{part}`")
        node = node[part]
        walked.append(part)
    if node is None:
        raise UnusableMetricError(f"{path} could not be computed: the metrics hold null")
    if isinstance(node, bool) or not isinstance(node, Real):
        raise UnusableMetricError(f"{path} is no number but {type(node).__name__}: {str(node)[:60]}")
    try:
        value = float(node)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise UnusableMetricError(f"{path} is {value}")
    return value


def known_metrics(
    gate: GateName, scorer: Scorer, few_steps: tuple[int, ...], sizes: Sequence[str] = ()
) -> tuple[str, ...]:
    """Every path that a rule of this gate may name.

    Args:
        gate: the serving gate may also bound what the quality gate bounds; not the other way round, as parity
            and serving do not exist before export.
        scorer: the shapes scorer gives a score for each of GenEval's six tasks, the distribution scorer none.
        few_steps: `evaluate.few_steps`, the step counts that the candidate is evaluated at.
        sizes: other sizes than the square that it is evaluated at, `WIDTHxHEIGHT`.
    """
    settings = tuple(f"nfe{steps}" for steps in few_steps)
    paths = [*_model_metrics("reference", scorer), "reference.nfe", "reference.nfe1.score"]
    for setting in (*settings, "many"):
        paths += _model_metrics(f"candidate.{setting}", scorer)
    for setting in settings:
        paths += [f"ratio.score_{setting}", f"ratio.diversity_{setting}"]
    for size in sizes:
        paths += [at_size(path, size) for path in _model_metrics("reference", scorer)]
        paths += [at_size(path, size) for path in paths if is_at_every_size(path)]
    if gate == "serving":
        paths += [*PARITY_METRICS, *SERVING_METRICS]
    return tuple(paths)


def at_size(path: str, size: str) -> str:
    """The same metric of images of another size than the square."""
    return f"sizes.{size}.{path}"


def is_at_every_size(path: str) -> bool:
    """Whether a metric of the square is had at the other sizes too: the candidate's at few steps are."""
    return re.match(r"(candidate\.|ratio\.\w+_)nfe\d", path) is not None


def _model_metrics(prefix: str, scorer: Scorer) -> Iterator[str]:
    yield f"{prefix}.score"
    yield f"{prefix}.diversity"
    if scorer == "shapes":
        yield from (f"{prefix}.tasks.{task}" for task in TASKS)
