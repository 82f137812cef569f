"""Text graphs of CLIP and T5 encoders, which SD3 and FLUX.1 tell nothing but the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import EMBEDS, POOLED
from twinflow_core.backbones.sd3 import T5_TOKENS
from twinflow_core.export.compose import Composition, axes
from twinflow_core.export.graphs import SplitTextEncoder
from twinflow_core.export.onnx_model import EXAMPLE_BATCH, export_model
from twinflow_core.export.padded_tokenizer import PaddedTokenizer, ids_input
from twinflow_core.runtime.package import TEXT_GRAPH


class LastStates(nn.Module):
    """A T5 encoder: token ids [B, L] to the last hidden state [B, L, W]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """See the class."""
        states: Tensor = self.encoder(input_ids)[0]
        return states


class PooledText(nn.Module):
    """A CLIP text encoder without projection: token ids [B, L] to states [B, L, W] and the pooled one [B, W]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        output = self.encoder(input_ids, output_hidden_states=False)
        return output.last_hidden_state, output.pooler_output


def _trace(module: nn.Module, length: int, outputs: Sequence[str], opset: int) -> ir.Model:
    ids = torch.zeros(EXAMPLE_BATCH, length, dtype=torch.int64)
    return export_model(module, {"input_ids": ids}, list(outputs), opset)


def _clip_outputs(encoder: Any) -> list[str]:
    states = [f"hidden_states.{layer}" for layer in range(encoder.config.num_hidden_layers + 1)]
    return ["text_embeds", "last_hidden_state", *states]


def encoder_graph(name: str) -> str:
    """The file of one of the pipeline's text encoders."""
    return f"{name}/model.onnx"


def sd3_tokenizers(backbone: Backbone) -> dict[str, PaddedTokenizer]:
    """CLIP's two, and T5's if it is there."""
    pipeline = backbone.pipeline
    lengths = {"tokenizer": pipeline.tokenizer_max_length, "tokenizer_2": pipeline.tokenizer_max_length}
    if pipeline.text_encoder_3 is not None:
        lengths["tokenizer_3"] = T5_TOKENS
    return {name: PaddedTokenizer(getattr(pipeline, name), length) for name, length in lengths.items()}


def sd3_graphs(backbone: Backbone, opset: int) -> dict[str, ir.Model]:
    """Two CLIPs side by side, T5 behind them if it is there."""
    pipeline, lengths = backbone.pipeline, [each.length for each in sd3_tokenizers(backbone).values()]
    clips = ("text_encoder", "text_encoder_2")
    graphs = {
        encoder_graph(name): _trace(SplitTextEncoder(encoder), lengths[0], _clip_outputs(encoder), opset)
        for name, encoder in ((name, getattr(pipeline, name)) for name in clips)
    }
    t5 = None
    if pipeline.text_encoder_3 is not None:
        t5 = _trace(LastStates(pipeline.text_encoder_3), lengths[2], ["last_hidden_state"], opset)
    context, width = backbone.encode_prompts([""]).prompt_embeds.shape[1:]
    graphs |= {TEXT_GRAPH: sd3_text_model(list(graphs.values()), t5, context, width, opset)}
    return graphs if t5 is None else {encoder_graph("text_encoder_3"): t5, **graphs}


def sd3_text_model(
    clips: Sequence[ir.Model], t5: ir.Model | None, context: int, width: int, opset: int
) -> ir.Model:
    """Token ids of all tokenizers to prompt embeddings [B, context, width] and pooled embeddings.

    Args:
        clips: each ids to text_embeds, last_hidden_state, and every layer's hidden state.
        t5: ids to states [B, L, width], which follow those of the clips; without it zeros do.
        context: tokens of the whole context.
        width: of one token's embedding, zeros at its end included.
        opset: of the result.
    """
    whole = Composition(opset)
    placed = []
    for number, encoder in enumerate(clips):
        ids = whole.input(ids_input(number), ir.DataType.INT64, axes(encoder.graph.inputs[0]))
        placed.append(whole.place(encoder, ids))
    states = whole.op("Concat", *(outputs[-2] for outputs in placed), axis=-1)
    pooled = whole.op("Concat", *(outputs[0] for outputs in placed), axis=-1)
    batch, length, _ = axes(clips[0].graph.outputs[-2])
    wide = sum(int(axes(encoder.graph.outputs[-2])[2]) for encoder in clips)
    after = 0 if t5 else context - int(length)
    embeds = whole.op("Pad", states, whole.constant([0, 0, 0, 0, after, width - wide]))
    if t5 is not None:
        ids = whole.input(ids_input(len(clips)), ir.DataType.INT64, axes(t5.graph.inputs[0]))
        (more,) = whole.place(t5, ids)
        embeds = whole.op("Concat", embeds, more, axis=1)
    pooled_width = sum(int(axes(encoder.graph.outputs[0])[1]) for encoder in clips)
    return whole.finish({EMBEDS: (embeds, (batch, context, width)), POOLED: (pooled, (batch, pooled_width))})


def flux_tokenizers(backbone: Backbone) -> dict[str, PaddedTokenizer]:
    """CLIP's and T5's."""
    pipeline = backbone.pipeline
    return {
        "tokenizer": PaddedTokenizer(pipeline.tokenizer, pipeline.tokenizer_max_length),
        "tokenizer_2": PaddedTokenizer(pipeline.tokenizer_2, backbone.max_tokens),
    }


def flux_graphs(backbone: Backbone, opset: int) -> dict[str, ir.Model]:
    """CLIP's pooled state and T5's states, each from tokens of its own."""
    pipeline, lengths = backbone.pipeline, [each.length for each in flux_tokenizers(backbone).values()]
    outputs = ["last_hidden_state", "pooler_output"]
    clip = _trace(PooledText(pipeline.text_encoder), lengths[0], outputs, opset)
    t5 = _trace(LastStates(pipeline.text_encoder_2), lengths[1], ["last_hidden_state"], opset)
    whole = Composition(opset)
    ids = [
        whole.input(ids_input(number), ir.DataType.INT64, axes(each.graph.inputs[0]))
        for number, each in enumerate((clip, t5))
    ]
    _, pooled = whole.place(clip, ids[0])
    (embeds,) = whole.place(t5, ids[1])
    shapes = axes(t5.graph.outputs[0]), axes(clip.graph.outputs[1])
    text = whole.finish({EMBEDS: (embeds, shapes[0]), POOLED: (pooled, shapes[1])})
    return {encoder_graph("text_encoder"): clip, encoder_graph("text_encoder_2"): t5, TEXT_GRAPH: text}
