"""Texts to prompt embeddings, family by family: the encoders' graphs, the text graph, and their tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.export.clip_and_t5 import (
    encoder_graph,
    flux_graphs,
    flux_tokenizers,
    sd3_graphs,
    sd3_tokenizers,
)
from twinflow_core.export.language_model import Reading, language_model_graphs
from twinflow_core.export.padded_tokenizer import PaddedTokenizer
from twinflow_core.export.readings import flux2, flux2_klein, qwen_image, sana, z_image


@dataclass(frozen=True)
class TextFamily:
    """How one family's texts become embeddings.

    Attributes:
        tokenizers: by the pipeline's names, in the order of the text graph's inputs.
        graphs: graphs by their files in the package, the text graph last.
    """

    tokenizers: Callable[[Backbone], dict[str, PaddedTokenizer]]
    graphs: Callable[[Backbone, int], dict[str, ir.Model]]


def _language_model(reading: Callable[[Backbone], Reading]) -> TextFamily:
    """A family whose one text encoder is a language model."""
    return TextFamily(
        lambda backbone: {"tokenizer": reading(backbone).tokenizer},
        lambda backbone, opset: language_model_graphs(
            backbone.pipeline.text_encoder, reading(backbone), encoder_graph("text_encoder"), opset
        ),
    )


FAMILIES: dict[str, TextFamily] = {
    "flux": TextFamily(flux_tokenizers, flux_graphs),
    "flux2": _language_model(flux2),
    "flux2-klein": _language_model(flux2_klein),
    "qwen-image": _language_model(qwen_image),
    "sana": _language_model(sana),
    "sd3": TextFamily(sd3_tokenizers, sd3_graphs),
    "z-image": _language_model(z_image),
}


def text_graphs(backbone: Backbone, opset: int) -> dict[str, ir.Model]:
    """The text encoders' graphs and the text graph, by their files; those whose weights others use first."""
    return FAMILIES[backbone.family].graphs(backbone, opset)


def tokenizers(backbone: Backbone) -> dict[str, PaddedTokenizer]:
    """The tokenizers by their folders, in the order of the text graph's inputs."""
    return FAMILIES[backbone.family].tokenizers(backbone)


def encoder_names(backbone: Backbone) -> list[str]:
    """The pipeline's text encoders."""
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return [name for name in names if getattr(backbone.pipeline, name, None) is not None]
