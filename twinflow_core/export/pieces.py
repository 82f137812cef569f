"""What is traced of a pipeline, each part once: everything else is cut out of it and composed of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import torch

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.export.denoiser import DenoiserGraphs
from twinflow_core.export.graphs import LATENTS, MarkedDecoder
from twinflow_core.export.onnx_model import EXAMPLE_BATCH, export_model
from twinflow_core.export.text import text_graphs

NAMES = ("denoiser", "decoder", "text")


@dataclass(frozen=True)
class Pieces:
    """The traced parts of one pipeline.

    Attributes:
        denoiser: the transformer.
        decoder: `MarkedDecoder`, latents to images and the marks.
        text: the text encoders' graphs and the text graph, by their files.
        opset: of all.
    """

    denoiser: DenoiserGraphs
    decoder: ir.Model
    text: dict[str, ir.Model]
    opset: int


def trace(backbone: Backbone, opset: int, done: Callable[[int, str], None]) -> Pieces:
    """Trace all parts.

    Args:
        backbone: the model, in float32 on the CPU.
        opset: of every graph.
        done: told how many parts are traced, and the last one's name.

    Raises:
        TwinflowError: models of this family have no graphs.
    """
    denoiser = DenoiserGraphs(backbone, opset)
    done(1, NAMES[0])
    decoder = traced_decoder(backbone, opset)
    done(2, NAMES[1])
    text = text_graphs(backbone, opset)
    done(3, NAMES[2])
    return Pieces(denoiser, decoder, text, opset)


def traced_decoder(backbone: Backbone, opset: int) -> ir.Model:
    """Latents to images and the marks, see `MarkedDecoder`."""
    latents = {LATENTS: torch.randn(EXAMPLE_BATCH, *backbone.latent_shape)}
    return export_model(MarkedDecoder(backbone), latents, list(MarkedDecoder.outputs), opset)
