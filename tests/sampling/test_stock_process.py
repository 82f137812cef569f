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

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.sampling.few_step import few_step_times, sample_few_steps

PROMPT, SEED = "a red circle", 3
STOCK = """
import json, sys
from importlib.util import find_spec
assert find_spec("twinflow_core") is None, "this package can be imported here"
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
folder, prompt, seed, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
pipeline = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
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
def test_a_checkpoint_loads_and_samples_without_this_package(tiny_pipeline: Path, tmp_path: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    # As after training: a target time that has learnt something, and other weights than the base's.
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.velocity.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
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
        ours = sample_few_steps(lambda x, t, r: backbone.velocity(x, t, r, conditioning), noises)
        assert np.allclose(np.array(stock[str(steps)]), ours.numpy(), atol=1e-4)


def stock_path() -> list[str]:
    """The import path without this checkout; `-S` leaves out the editable install's finder."""
    root = Path(__file__).resolve().parents[2]
    return [
        path
        for path in sys.path
        if path and not (Path(path) / "twinflow_core").exists() and path != str(root)
    ]
