"""Text graphs give what the pipelines' own encoders give; a package without one says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tests.backbones.tiny_flux import build_tiny_flux_dev
from tests.backbones.tiny_text import t5_encoder, t5_tokenizer
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.export.text import encodes_text, text_graphs, tokenizers
from twinflow_core.runtime.loaded_package import LoadedPackage, PromptEmbeddings
from twinflow_core.runtime.package import MANIFEST, TEXT_GRAPH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("export")]
PARITY = 1e-4
"""Largest |difference| in shares of the range: the serving gate's own bound in fp32."""
PROMPTS = ["a red circle", "", "three yellow squares above " * 40]


def agrees(backbone: Backbone) -> None:
    """The text graph, fed by the package's tokenizers, against the backbone."""
    model = text_graphs(backbone, 20)[TEXT_GRAPH]
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ids = {
        each.name: np.array([line.ids for line in tokenizer.backend().encode_batch(PROMPTS)], np.int64)
        for each, tokenizer in zip(session.get_inputs(), tokenizers(backbone).values(), strict=True)
    }
    embeds, pooled = session.run(["prompt_embeds", "pooled_prompt_embeds"], ids)
    expected = backbone.encode_prompts(PROMPTS)
    assert embeds.shape == tuple(expected.prompt_embeds.shape)
    for served, wanted in ((embeds, expected.prompt_embeds), (pooled, expected.pooled)):
        np.testing.assert_allclose(served, wanted, rtol=0, atol=PARITY * float(wanted.max() - wanted.min()))


def test_flux_reads_clip_and_t5(tmp_path: Path) -> None:
    agrees(load_backbone(build_tiny_flux_dev(tmp_path / "pipeline")))


def test_sd3_with_t5(tiny_pipeline: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    tokenizer = t5_tokenizer(256)
    width = backbone.pipeline.transformer.config.joint_attention_dim
    backbone.pipeline.register_modules(
        text_encoder_3=t5_encoder(tokenizer, width=width), tokenizer_3=tokenizer
    )
    assert list(tokenizers(backbone)) == ["tokenizer", "tokenizer_2", "tokenizer_3"]
    agrees(backbone)


def test_a_package_without_text_says_so_and_draws_from_embeddings(tiny_package: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    shutil.copytree(tiny_package, silent)
    manifest = json.loads((silent / MANIFEST).read_text(encoding="utf-8"))
    (silent / MANIFEST).write_text(json.dumps({**manifest, "text": None, "tokenizers": []}), encoding="utf-8")
    package, whole = (LoadedPackage.from_folder(folder, "cpu") for folder in (silent, tiny_package))
    package.warm_up(2)
    with pytest.raises(TwinflowError, match="takes prompt embeddings, not texts"):
        package.generate(["a red circle"])
    noises = np.random.default_rng(0).standard_normal((2, 1, *package.manifest.latent_shape), np.float32)
    embeddings = whole.encode(["a red circle", ""])
    np.testing.assert_array_equal(package.render(noises, embeddings), whole.render(noises, embeddings))


def test_fewer_tokens_are_filled_up_where_a_mask_tells() -> None:
    masked = PromptEmbeddings(
        {"prompt_embeds": np.ones((2, 3, 4), np.float32), "prompt_mask": np.ones((2, 3), bool)}
    )
    filled = masked.filled_up(5)
    assert filled.parts["prompt_embeds"].shape == (2, 5, 4)
    assert filled.parts["prompt_mask"].tolist() == [[True] * 3 + [False] * 2] * 2
    with pytest.raises(ValueError, match="3 tokens, where the graph takes 5"):
        PromptEmbeddings({"prompt_embeds": np.ones((2, 3, 4), np.float32)}).filled_up(5)
    with pytest.raises(ValueError, match="3 tokens"):
        masked.filled_up(2)


def test_families_without_a_text_graph_have_no_tokenizers(tiny_pipeline: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    assert encodes_text(backbone)
    backbone.__class__ = type("Unheard", (type(backbone),), {"family": "unheard"})
    assert not encodes_text(backbone)
    assert tokenizers(backbone) == {}
    assert text_graphs(backbone, 20) == {}
