"""`twinflow plan` on the repository's own base, as people and as programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from twinflow_core.cli.app import app

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_plan_of_the_bundled_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    told = CliRunner().invoke(app, ["plan", "--json"])
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["asked"]["fits"]
    assert document["size"] == "32x32"
    assert document["asked"]["memory"]["total"] < 4 * 2**30
    assert document["encode"]["fits"]
    assert set(document["encode"]["parameters"]) == {"text_encoder", "text_encoder_2", "vae"}
    shown = CliRunner().invoke(app, ["plan", "--gpu", "rtx4090-24"])
    assert shown.exit_code == 0, shown.output
    assert "activations" in shown.stdout
    assert "encode.batch_size 128" in shown.stdout
    assert "Assumed" in shown.stdout
