"""FLUX.2 dev's text: a chat without the tokenizer's own marks, filled up on the left, and all that padding is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tokenizers.processors import TemplateProcessing

from tests.backbones.tiny_flux2 import SHALLOW, build_tiny_flux2_dev, reading_shallow
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export.text import text_graphs, tokenizers
from twinflow_core.runtime.package import TEXT_GRAPH
from twinflow_core.runtime.prompt_tokens import PromptTokens

pytestmark = pytest.mark.slow
# Largest |difference| in shares of the range: the serving gate's own bound in fp32.
PARITY = 1e-4
PROMPTS = ["a red circle", "", "a [IMG] in the middle", "größer ☆ 星", "three yellow squares above " * 200]


def test_flux2_dev_reads_padding_on_the_left(tmp_path: Path) -> None:
    with reading_shallow():
        backbone = load_backbone(build_tiny_flux2_dev(tmp_path / "pipeline", layers=SHALLOW))
        released_ways(backbone.pipeline)
        model = text_graphs(backbone, 20)[TEXT_GRAPH]
        tokenizer = tokenizers(backbone)["tokenizer"]
        expected = backbone.encode_prompts(PROMPTS).prompt_embeds
    tokenizer.backend().save(str(tmp_path / "tokenizer.json"))
    tokens = PromptTokens(tmp_path, tokenizer.spec("tokenizer.json", 0))
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (served,) = session.run(None, tokens(PROMPTS))
    assert served.shape == tuple(expected.shape)
    atol = PARITY * float(expected.max() - expected.min())
    np.testing.assert_allclose(served, expected, rtol=0, atol=atol)


def released_ways(pipeline: Any) -> None:
    """What the released tokenizer does and the tiny one does not; and a window, which other Mistrals have."""
    tokenizer = pipeline.tokenizer
    tokenizer.padding_side = "left"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A",
        special_tokens=[("<|im_start|>", tokenizer.convert_tokens_to_ids("<|im_start|>"))],
    )
    pipeline.text_encoder.config.text_config.sliding_window = 32
