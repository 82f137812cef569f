"""The split folders hold what optimum-onnx looks for, and agree with torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import CLIPTokenizer

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def backbone(tiny_pipeline: Path) -> Backbone:
    return load_backbone(tiny_pipeline)


def run(path: Path, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {k: v.numpy() for k, v in inputs.items()}), strict=True))


def test_transformer(tiny_package: Path, backbone: Backbone) -> None:
    conditioning = backbone.encode_prompts(["a red circle"] * 3)
    inputs = {
        "hidden_states": torch.randn(3, *backbone.latent_shape),
        "encoder_hidden_states": conditioning.prompt_embeds,
        "pooled_projections": conditioning.pooled,
        "timestep": torch.tensor([1000.0, 500.0, 1.0]),
    }
    with torch.no_grad():
        expected = backbone.pipeline.transformer(**inputs, return_dict=False)[0]
    served = run(tiny_package / "transformer/model.onnx", inputs)["out_hidden_states"]
    # Wider than elsewhere: here the sine of the time is the runtime's own.
    np.testing.assert_allclose(served, expected, atol=1e-3)


def test_decoder(tiny_package: Path, backbone: Backbone) -> None:
    latents = torch.randn(3, *backbone.latent_shape)
    with torch.no_grad():
        expected = backbone.pipeline.vae.decode(latents, return_dict=False)[0]
    served = run(tiny_package / "vae_decoder/model.onnx", {"latent_sample": latents})["sample"]
    np.testing.assert_allclose(served, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
def test_text_encoders(tiny_package: Path, backbone: Backbone, name: str) -> None:
    ids = torch.randint(0, 500, (3, backbone.pipeline.tokenizer_max_length))
    with torch.no_grad():
        expected = getattr(backbone.pipeline, name)(ids, output_hidden_states=True)
    served = run(tiny_package / name / "model.onnx", {"input_ids": ids})
    np.testing.assert_allclose(served["text_embeds"], expected.text_embeds, atol=TOLERANCE)
    np.testing.assert_allclose(served["last_hidden_state"], expected.last_hidden_state, atol=TOLERANCE)
    for layer, states in enumerate(expected.hidden_states):
        np.testing.assert_allclose(served[f"hidden_states.{layer}"], states, atol=TOLERANCE)


def test_configurations_are_the_models_own(tiny_package: Path, tiny_pipeline: Path) -> None:
    index = json.loads((tiny_package / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusion3Pipeline"
    for made, source in (("transformer", "transformer"), ("vae_decoder", "vae")):
        config = json.loads((tiny_package / made / "config.json").read_text())
        assert config == json.loads((tiny_pipeline / source / "config.json").read_text())


def test_no_configuration_tells_where_the_model_lay(tiny_package: Path, tiny_pipeline: Path) -> None:
    for path in tiny_package.rglob("*.json"):
        assert str(tiny_pipeline) not in path.read_text(encoding="utf-8"), path


def test_transformers_still_reads_the_tokenizer(tiny_package: Path, tiny_pipeline: Path) -> None:
    text = ["a red circle", "unseen wörds"]
    exported = CLIPTokenizer.from_pretrained(tiny_package / "tokenizer")
    assert (
        exported(text).input_ids == CLIPTokenizer.from_pretrained(tiny_pipeline / "tokenizer")(text).input_ids
    )
