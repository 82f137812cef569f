"""The table fits an ordinary terminal and hides no reason."""

from __future__ import annotations

import io

from rich.console import Console

from tests.gates.measured import candidate_at
from twinflow_core.gates.evidence import Evidence
from twinflow_core.gates.rules import evaluate_rules
from twinflow_core.gates.table import gate_table
from twinflow_core.params import Rule


def test_shows_every_rule_and_why_it_did_not_pass() -> None:
    rules = [
        Rule(id="score", metric="candidate.nfe1.score", min=0.1),
        Rule(id="diversity-of-base", metric="ratio.diversity_nfe1", min=0.8),
        Rule(id="not-worse", metric="candidate.nfe1.score", champion_margin=0.03),
    ]
    evidence = Evidence(candidate_at(0.7, prompts_per_task=2))
    outcomes = evaluate_rules(rules, evidence, resamples=100, seed=0, on_no_champion="promote")
    console = Console(width=80, file=io.StringIO())
    console.print(gate_table(outcomes, "Quality gate"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Quality gate" in text
    assert "≥ 0.1" in text
    assert "≥ champion - 0.03" in text
    assert "ratio.diversity_nfe1 is missing" in text
    assert "There is no champion" in text
    assert max(len(line) for line in text.splitlines()) <= 80
