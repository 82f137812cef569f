"""A saved candidate samples in a process that has diffusers and not one line of this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_loop import STEPS, data_of
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.sampling.few_step import few_step_times, sample_few_steps
from twinflow_core.training.loop import Resume, Training

PROMPT, SEED = "a red circle", 3
STOCK = """
import json, sys
from importlib.util import find_spec
assert find_spec("twinflow_core") is None, "this package can be imported here"
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
folder, prompt, seed, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
pipeline = DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
latents = {}
for sigmas in ([1.0], [1.0, 0.5]):
    torch.manual_seed(seed)
    latents[str(len(sigmas))] = pipeline(
        prompt, num_inference_steps=len(sigmas), sigmas=sigmas, guidance_scale=0, max_sequence_length=1,
        output_type="latent",
    ).images.tolist()
assert not any(name.startswith("twinflow") for name in sys.modules)
json.dump(latents, open(out, "w"))
"""


@pytest.mark.slow
def test_a_trained_candidate_loads_and_samples_without_this_package(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(tiny_pipeline)
    options = STEPS.model_copy(update={"steps": 3, "learning_rate": 0.02})
    training = Training(backbone.velocity, data_of(backbone), options, Resume(tmp_path / "state", "k"))
    training.run()
    base = load_backbone(tiny_pipeline)
    backbone = load_backbone(tiny_pipeline)
    training.collect(backbone.velocity)
    backbone.save(tmp_path / "candidate")
    done = subprocess.run(
        [
            *(sys.executable, "-S", "-c", f"import sys; sys.path[:] = {stock_path()!r}\n{STOCK}"),
            *(str(tmp_path / "candidate"), PROMPT, str(SEED), str(tmp_path / "latents.json")),
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stock = json.loads((tmp_path / "latents.json").read_text())
    conditioning = backbone.encode_prompts([PROMPT])
    for steps in (1, 2):
        # The stock pipeline draws its noises one after the other from torch's own generator.
        noise = torch.Generator().manual_seed(SEED)
        shape = (1, *backbone.latent_shape)
        noises = torch.stack([torch.randn(shape, generator=noise) for _ in few_step_times(steps)])
        ours, before = (
            sample_few_steps(lambda x, t, r, of=of: of.velocity(x, t, r, conditioning), noises)
            for of in (backbone, base)
        )
        assert np.allclose(np.array(stock[str(steps)]), ours.numpy(), atol=1e-4)
        assert float((ours - before).abs().max()) > 0.01


def stock_path() -> list[str]:
    """The import path without this checkout; `-S` leaves out the editable install's finder."""
    root = Path(__file__).resolve().parents[2]
    return [
        path
        for path in sys.path
        if path and not (Path(path) / "twinflow_core").exists() and path != str(root)
    ]
