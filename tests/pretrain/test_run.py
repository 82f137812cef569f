"""A whole base from a tiny recipe, and the recipe's own checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from twinflow_core.errors import TwinflowError
from twinflow_core.pretrain import run
from twinflow_core.pretrain.pipeline import load_base
from twinflow_core.pretrain.recipe import FlowRecipe, Recipe, TextRecipe, VaeRecipe, load_recipe

TINY = Recipe(
    vae=VaeRecipe(channels=(4, 8, 8), images=64, steps=3, batch=8),
    text=TextRecipe(width=16, heads=2, steps=3, batch=8),
    flow=FlowRecipe(
        layers=1,
        heads=2,
        head_width=8,
        images=48,
        steps=4,
        decay=2,
        warmup=1,
        batch=8,
        layout_block=0,
        score_every=4,
    ),
)


def test_a_tiny_base_is_trained_written_and_warm_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_MILESTONE_STEPS", 2)
    monkeypatch.setattr(run, "_MILESTONE_PROMPTS", 1)
    monkeypatch.setattr(run, "SCORE", run.ScoreSetting(prompts=1, steps=2, each=1))
    lines: list[str] = []
    record = run.pretrain(TINY, tmp_path / "base", lines.append)
    assert json.loads((tmp_path / "base" / "recipe.json").read_text()) == record
    assert Recipe.model_validate(record["recipe"]) == TINY
    assert record["steps"] == 4
    base = load_base(tmp_path / "base")
    assert base.transformer.dtype == torch.float32
    again = run.pretrain(TINY, tmp_path / "next", lines.append, warm_start=tmp_path / "base")
    assert again["steps"] == 4
    for config in (tmp_path / "next").rglob("*.json"):
        assert str(tmp_path) not in config.read_text()


def test_work_inside_the_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError, match="inside the output"):
        run.pretrain(TINY, tmp_path, lambda line: None, work_dir=tmp_path / "work")


def test_a_recipe_keeps_defaults_and_refuses_unknown_keys(tmp_path: Path) -> None:
    path = tmp_path / "pretrain.yaml"
    path.write_text("flow: {steps: 7}\n")
    assert load_recipe(path).flow.steps == 7
    assert load_recipe(path).vae == VaeRecipe()
    path.write_text("flow: {stepz: 7}\n")
    with pytest.raises(TwinflowError, match="not valid"):
        load_recipe(path)
    with pytest.raises(TwinflowError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
