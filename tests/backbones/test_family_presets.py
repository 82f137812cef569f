"""The presets of docs/families.md are valid, and hold the numbers of the paper's Table 6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documented_presets import documented_presets
from twinflow_core.finetune_params import FinetuneParams

REPOSITORY = Path(__file__).parents[2]
PRESETS = documented_presets("families.md")
# rate, betas, batch, steps, decay of the average, rank; arXiv 2512.05150 v2.
PAPER: dict[str, tuple[float, tuple[float, float], int, int, float, int]] = {
    "sana-0.6b": (1e-4, (0.9, 0.95), 128, 30_000, 0.99, 0),
    "sana-1.6b": (1e-4, (0.9, 0.99), 128, 30_000, 0.99, 0),
    "qwen-image-lora": (1e-4, (0.9, 0.99), 64, 7_000, 0.0, 64),
    "qwen-image-full": (1e-5, (0.9, 0.99), 32, 3_000, 0.99, 0),
}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_a_preset_is_valid_and_the_papers(name: str) -> None:
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    options = FinetuneParams.model_validate(document["finetune"] | PRESETS[name])
    assert PAPER[name] == (
        options.learning_rate,
        options.betas,
        options.batch_size,
        options.steps,
        options.ema_decay,
        options.lora_rank,
    )
    # Its rate is constant, and its seed 42.
    assert (options.warmup_steps, options.decay_steps, options.seed) == (0, 0, 42)
