"""Metrics on disk are JSON that a strict reader takes, whatever could not be computed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinflow_core.evaluation.metrics_file import write_metrics
from twinflow_core.evaluation.scoring import ratios
from twinflow_core.gates.metrics import UnusableMetricError, metric_value

documents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.floats() | st.integers() | st.text(max_size=5) | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def same(written: Any, read: Any) -> bool:
    if isinstance(written, dict):
        return written.keys() == read.keys() and all(same(written[key], read[key]) for key in written)
    if isinstance(written, list):
        return len(written) == len(read) and all(map(same, written, read))
    if isinstance(written, float) and not math.isfinite(written):
        return read is None
    return bool(written == read)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents)
def test_numbers_come_back_and_what_is_none_is_null(tmp_path: Path, document: dict[str, Any]) -> None:
    write_metrics(document, tmp_path / "metrics.json")
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert same(document, json.loads(text, parse_constant=refuse))


def test_a_diversity_that_no_prompt_gives_is_null_and_never_a_number(tmp_path: Path) -> None:
    reference = {"score": 0.9, "diversity": 0.3}
    candidate = {"nfe1": {"score": 0.1, "diversity": float("nan")}}
    document = {"candidate": candidate, "ratio": ratios(reference, candidate)}
    write_metrics(document, tmp_path / "metrics.json")
    read = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert read["ratio"]["score_nfe1"] == pytest.approx(1 / 9)
    for path in ("candidate.nfe1.diversity", "ratio.diversity_nfe1"):
        with pytest.raises(UnusableMetricError, match="could not be computed"):
            metric_value(read, path)


def test_a_reference_without_diversity_gives_no_ratio() -> None:
    made = ratios({"score": 0.0, "diversity": None}, {"nfe1": {"score": 0.5, "diversity": 0.2}})  # type: ignore[dict-item]
    assert all(math.isnan(value) for value in made.values())
