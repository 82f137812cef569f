"""Run by another Python, which has optimum-onnx: `optimum_check.py PACKAGE PIPELINE`.

Draws with optimum's pipeline from the package and with diffusers' from the torch weights, from the same latents and
the embeddings that the package's text encoders gave, and prints {"versions", "pipeline", "max_abs"} as JSON.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from optimum.onnxruntime import ORTDiffusionPipeline

LIBRARIES = ("diffusers", "optimum", "optimum-onnx", "transformers")
# Without T5 these libraries append a row of zeros for each token of CLIP; later ones, and the package, take one.
CONTEXT = 13
ABSENT = {"text_encoder_3": None, "tokenizer_3": None}


def draw(pipeline: Any, embeds: torch.Tensor, pooled: torch.Tensor) -> np.ndarray:
    """Images of two Euler steps without guidance from latents that are always the same."""
    pipeline.set_progress_bar_config(disable=True)
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    images: np.ndarray = pipeline(
        prompt_embeds=embeds,
        pooled_prompt_embeds=pooled,
        num_inference_steps=2,
        guidance_scale=0.0,
        height=32,
        width=32,
        latents=torch.from_numpy(latents),
        output_type="np",
    ).images
    return images


def main() -> None:
    """Compare and print."""
    package, folder = sys.argv[1:]
    served = ORTDiffusionPipeline.from_pretrained(package, provider="CPUExecutionProvider", **ABSENT)
    # These transformers cannot read the tokenizers that newer ones save; the package's they can.
    tokenizers = {"tokenizer": served.tokenizer, "tokenizer_2": served.tokenizer_2}
    stock = DiffusionPipeline.from_pretrained(folder, **tokenizers, **ABSENT)
    embeds, _, pooled, _ = served.encode_prompt(
        "a red circle", None, None, do_classifier_free_guidance=False, device=torch.device("cpu")
    )
    told = torch.as_tensor(embeds)[:, :CONTEXT], torch.as_tensor(pooled)
    difference = float(np.abs(draw(served, *told) - draw(stock, *told)).max())
    versions = {name: version(name) for name in LIBRARIES}
    print(json.dumps({"versions": versions, "pipeline": type(served).__name__, "max_abs": difference}))


if __name__ == "__main__":
    main()
