"""Each preset of docs/objectives.md, over the real params.yaml, is what it says: whole, at its cost, and it trains."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.objectives.cost import equivalents_a_row
from tests.documented_presets import REPOSITORY, documented_presets
from tests.training.test_loop import data_of, train
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.flow.targets import guided, guided_target
from twinflow_core.params import load_params
from twinflow_core.training.loop import Resume, Training

PRESETS = documented_presets("objectives.md")
# What the page leaves to the user.
YOURS = ("steps", "batch_size", "caption_dropout", "seed", "log_every", "checkpoint_every")
# Read by a second network and by other objectives alone.
UNUSED = {"fake_score", "meanflow"}
SHORT: dict[str, Any] = {"steps": 2, "checkpoint_every": 2, "log_every": 1}

every_preset = pytest.mark.parametrize("name", sorted(PRESETS))


def bundled() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    return document


def merged(name: str, folder: Path, **changed: Any) -> FinetuneParams:
    """params.yaml with a preset's values, and some more, over its finetune section."""
    document = bundled()
    document["finetune"] |= PRESETS[name] | changed
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_params(folder / "params.yaml").finetune


def said_cost(name: str) -> float:
    page = (REPOSITORY / "docs/objectives.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \|[^|]*\| ([0-9.]+) \|$", page, re.MULTILINE)
    assert row is not None
    return float(row[1])


def test_the_five_presets_are_there() -> None:
    assert set(PRESETS) == {"paper", "lora-order-1", "lora-order-2", "data-free", "small-batch"}


@every_preset
def test_no_value_of_the_bundled_recipe_is_left_in_it(name: str, tmp_path: Path) -> None:
    own = {key: bundled()["finetune"][key] for key in YOURS}
    whole = FinetuneParams.model_validate(own | PRESETS[name])
    assert merged(name, tmp_path).model_dump(exclude=UNUSED) == whole.model_dump(exclude=UNUSED)
    assert (whole.objective, whole.fake_velocity) == ("twinflow", "online")


@every_preset
def test_it_costs_what_the_page_says(name: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    size = {} if "batch_size" in PRESETS[name] else {"batch_size": 48}
    chosen = merged(name, tmp_path, **size)
    backbone = load_backbone(tiny_pipeline)
    training = Training(backbone.velocity, data_of(backbone, 48), chosen, Resume(tmp_path / "state", "k"))
    # Equal shares are met by every batch; thirds by many.
    steps, slack = (1, 1e-9) if len(set(chosen.shares.values())) == 1 else (4, 0.03)
    assert equivalents_a_row(training, steps) == pytest.approx(said_cost(name), abs=slack)
    assert (training.base is not None) == (name in ("lora-order-1", "data-free"))
    assert training.fake_score is None


@every_preset
def test_it_trains(name: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    trained = train(tiny_pipeline, merged(name, tmp_path, **SHORT, batch_size=4), tmp_path / "state")
    assert len(trained.log) == 2
    assert all(math.isfinite(row["loss"]) for row in trained.log)


def test_the_papers_share_of_rows_and_weights_are_the_papers(tmp_path: Path) -> None:
    paper = merged("paper", tmp_path)
    twinflow = paper.shares["one_step"] + paper.shares["fake"]
    assert twinflow / sum(paper.shares.values()) == pytest.approx(1 / 3)
    assert paper.shares["near"] == 0
    assert (paper.rectify_weight, paper.adversarial_weight, paper.order) == (1.0, 1.0, 2)


def test_low_rank_presets_train_low_rank_weights_and_hold_the_base_once(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    chosen = merged("lora-order-1", tmp_path)
    backbone = load_backbone(tiny_pipeline)
    training = Training(backbone.velocity, data_of(backbone), chosen, Resume(tmp_path / "state", "k"))
    moving = {name for name, p in training.online.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name.startswith("target_time.") for name in moving)
    assert training.base is not None
    frozen = {p.data_ptr() for p in training.online.parameters() if not p.requires_grad}
    assert sum(p.data_ptr() in frozen for p in training.base.parameters()) == len(frozen)


def test_the_data_free_preset_asks_its_teacher_at_the_authors_scale(tmp_path: Path) -> None:
    conditional, unconditional = torch.tensor([1.5, -2.0]), torch.tensor([0.5, 1.0])
    strength = merged("data-free", tmp_path).guidance
    here = guided_target(conditional, conditional, unconditional, strength)
    assert torch.equal(here, guided(conditional, unconditional, 4.0))


def test_a_small_batch_is_computed_row_by_row(tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = merged("small-batch", tmp_path)
    backbone = load_backbone(tiny_pipeline)
    training = Training(backbone.velocity, data_of(backbone, 16), chosen, Resume(tmp_path / "state", "k"))
    assert [part.counts.total for part in training.rows(0)] == [1] * 16
