"""FLUX.2 reads three layers out of the middle of its language model: which ones, where the graphs' tests are shallow.

Tracing takes a minute at this depth, so here the module that is traced is run: on tiny models as deep as what is read,
against the stock pipeline, and on the published ones on the meta device, against the width that the transformer takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.backbones.families import RESOLUTION
from tests.backbones.tiny_flux2 import build_tiny_flux2_dev, build_tiny_flux2_klein
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export import readings
from twinflow_core.export.language_model import MarkedReader, Reading
from twinflow_core.plan.encode_needs import _build, _prompts
from twinflow_core.plan.named_models import named_model
from twinflow_core.runtime.prompt_tokens import PromptTokens


@dataclass(frozen=True)
class Kind:
    """One of FLUX.2's pipelines: tiny and as deep as what it reads, how it reads, which layers, and who is so."""

    build: Callable[[Path], Path]
    read: Callable[[Backbone], Reading]
    layers: tuple[int, ...]
    published: tuple[str, ...]


KINDS = {
    "dev": Kind(build_tiny_flux2_dev, readings.flux2, (10, 20, 30), ("flux.2-dev",)),
    "klein": Kind(
        build_tiny_flux2_klein, readings.flux2_klein, (9, 18, 27), ("flux.2-klein-4b", "flux.2-klein-9b")
    ),
}
TOKENS = 512
PROMPTS = ["a red circle", "", "größer ☆ 星", "three yellow squares above " * 200]


@pytest.fixture(scope="module", params=KINDS)
def deep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kind, Backbone]:
    kind = KINDS[request.param]
    return kind, load_backbone(kind.build(tmp_path_factory.mktemp("deep") / "pipeline"), RESOLUTION)


def test_the_layers_are_those_of_the_stock_pipeline(deep: tuple[Kind, Backbone], tmp_path: Path) -> None:
    kind, backbone = deep
    reading = kind.read(backbone)
    assert reading.layers == kind.layers
    reader = MarkedReader(backbone.pipeline.text_encoder, reading)
    assert reader.marks == [f"hidden_states.{layer}" for layer in kind.layers]
    reading.tokenizer.backend().save(str(tmp_path / "tokenizer.json"))
    tokens = PromptTokens(tmp_path, reading.tokenizer.spec("tokenizer.json", 0))(PROMPTS)
    with torch.no_grad():
        embeds, *states = reader(*map(torch.from_numpy, tokens.values()))
    torch.testing.assert_close(embeds, backbone.encode_prompts(PROMPTS).prompt_embeds)
    torch.testing.assert_close(embeds, torch.cat(states, dim=-1))


def test_published_encoders_give_what_the_transformer_takes(deep: tuple[Kind, Backbone]) -> None:
    kind, backbone = deep
    for name in kind.published:
        model = named_model(name)
        encoder = _build(next(part for part in model.parts if part.name == "text_encoder"))
        reader = MarkedReader(encoder, replace(kind.read(backbone), places=range(TOKENS)))
        told = _prompts(encoder, 2, TOKENS)
        embeds, *states = reader(told["input_ids"], told["attention_mask"])
        assert embeds.shape == (2, TOKENS, model.config["joint_attention_dim"])
        assert [state.shape[:2] for state in states] == [(2, TOKENS)] * len(kind.layers)
        assert reader.marks == [f"hidden_states.{layer}" for layer in kind.layers]
