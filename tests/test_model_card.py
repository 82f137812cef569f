"""The card tells what it is given, always in the same words, and its lines for stock diffusers draw."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.model_card import score_interval
from tests.tiny_pipeline import build_tiny_pipeline
from twinflow_core.gates.samples import PromptScores
from twinflow_core.model_card import CardFacts, model_card, stated_licence
from twinflow_core.params import load_params

FACTS = CardFacts(
    model="shapes",
    family="sd3",
    resolution=32,
    steps=(1, 2),
    data={
        "rows": 1200, "usable": 1190, "rejected": {"duplicate": 10, "too small": 0},
        "splits": {"train": 1100, "validation": 90}, "captions": {"distinct": 300, "longest_characters": 80},
        "width": {"min": 32, "max": 64}, "height": {"min": 32, "max": 48},
    },
    licence="apache-2.0",
    lineage={"data": "d" * 32, "base": "b" * 32},
    options=load_params(Path(__file__).parents[1] / "params.yaml").finetune,
    metrics={
        "scorer": "shapes", "reference": {"score": 0.9, "diversity": None},
        "candidate": {"nfe1": {"score": 0.8512, "diversity": 0.1}, "nfe2": {"score": 0.87, "diversity": 0.2}},
        "ratio": {},
    },
    intervals={"nfe1": (0.8, 0.9)},
    level=0.95,
    prompt='a photo of a "red" circle',
)  # fmt: skip


def test_a_card_tells_every_fact() -> None:
    card = model_card(FACTS)
    for told in (
        "# shapes", "1 or 2 evaluation(s)", "licence: apache-2.0", "d" * 32, "1,190 of 1,200 images",
        "1,100 train, 90 validation", "10 duplicate.", "32 to 64 pixels", "Objective: twinflow",
        "learning_rate: 0.0008", "| this model, nfe1 | 0.851 | 0.800 to 0.900 | 0.100 |",
        "| this model, nfe2 | 0.870 | - | 0.200 |", "| the base, many steps | 0.900 | - | - |", "95%",
        "steps=2)",
    ):  # fmt: skip
        assert told in card, told
    assert "no licence" in model_card(replace(FACTS, licence=None))


def test_a_card_tells_the_metrics_of_every_size() -> None:
    there = {
        "reference": {"score": 0.7, "diversity": 0.4},
        "candidate": {"nfe1": {"score": 0.6, "diversity": 0.3}},
    }
    card = model_card(replace(FACTS, metrics={**FACTS.metrics, "sizes": {"64x32": there}}))
    assert "| this model, nfe1, 64x32 | 0.600 | - | 0.300 |" in card
    assert "| the base, many steps, 64x32 | 0.700 | - | 0.400 |" in card


def test_what_does_not_change_the_model_does_not_change_its_card() -> None:
    elsewhere = FACTS.options.model_copy(update={"log_every": 77, "sample_every": 5, "keep_last": 3})
    assert model_card(replace(FACTS, options=elsewhere)) == model_card(FACTS)


@pytest.mark.slow
def test_the_lines_for_stock_diffusers_draw(tmp_path: Path) -> None:
    folder = build_tiny_pipeline(tmp_path / "candidate")
    *_, stock = re.findall(r"```python\n(.*?)```", model_card(FACTS), re.DOTALL)
    drawn: dict[str, object] = {}
    exec(stock.replace("models/candidate", str(folder)), drawn)
    assert drawn["image"].size[0] > 0  # type: ignore[attr-defined]
    assert len(drawn["sigmas"]) == 2  # type: ignore[arg-type]


def test_a_licence_is_found_where_folders_state_it(tmp_path: Path) -> None:
    assert stated_licence(tmp_path) is None
    (tmp_path / "LICENSE.md").write_text("\n  The Licence of Licences\nmore\n")
    assert stated_licence(tmp_path) == "The Licence of Licences"
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: community\n---\ntext\n")
    assert stated_licence(tmp_path) == "community"


def test_a_score_has_an_interval_around_it_where_images_are_judged() -> None:
    names = tuple(str(number) for number in range(40))
    tasks = ("colors", "counting") * 20
    correct = np.tile([1.0, 1.0, 0.0, 1.0], 10)
    scores = PromptScores(names, names, tasks, tasks, correct, np.ones(40))
    found = score_interval(scores)
    assert found is not None
    assert 0.5 < found[0] < 0.75 < found[1] < 1
    assert score_interval(replace(scores, correct=np.full(40, np.nan))) is None
