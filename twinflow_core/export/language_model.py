"""Language models as text encoders: token ids to the layers that a family reads, and to its prompt embeddings.

One trace gives both: the language model as other programs know it is cut out of the graph at its states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from twinflow_core.backbones.conditioning import EMBEDS, MASK
from twinflow_core.export.cut import cut
from twinflow_core.export.onnx_model import EXAMPLE_BATCH, export_model
from twinflow_core.export.padded_tokenizer import MASK_INPUT, PaddedTokenizer, ids_input
from twinflow_core.runtime.package import TEXT_GRAPH


@dataclass(frozen=True)
class Reading:
    """How a family reads a language model.

    Attributes:
        tokenizer: what gives the ids.
        layers: the hidden states that are read, side by side; 0 is the embedding, negative ones count from the end.
        places: the tokens whose states are kept.
        masked: whether the denoiser is told which of them are the prompt's; if not, it reads padding too.
    """

    tokenizer: PaddedTokenizer
    layers: tuple[int, ...]
    places: Sequence[int]
    masked: bool


class MarkedReader(nn.Module):
    """Prompt embeddings out of a language model, and the marks: the states they are made of.

    Args:
        model: in evaluation mode; it is called as the family's pipeline calls it.
        reading: how.
    """

    def __init__(self, model: Any, reading: Reading) -> None:
        super().__init__()
        self.model = model
        self._reading = reading
        self._places = torch.tensor(list(reading.places))

    @property
    def marks(self) -> list[str]:
        """Names of the states, counted from the embedding; the last one, after its norm, has a name of its own."""
        count = self.model.config.get_text_config().num_hidden_layers + 1
        numbers = [layer % count for layer in self._reading.layers]
        return ["last_hidden_state" if each == count - 1 else f"hidden_states.{each}" for each in numbers]

    @property
    def wanted(self) -> list[str]:
        """Names of what the denoiser takes."""
        return [EMBEDS, MASK] if self._reading.masked else [EMBEDS]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Prompt embeddings [B, T, D] and, if told, their mask bool [B, T], of ids and mask [B, L]; then the marks."""
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        read = [states[layer] for layer in self._reading.layers]
        embeds = torch.cat(read, dim=-1)[:, self._places]
        if not self._reading.masked:
            return (embeds, *read)
        counts = attention_mask[:, self._places] != 0
        return (torch.where(counts.unsqueeze(-1), embeds, 0.0), counts, *read)


def language_model_graphs(model: Any, reading: Reading, file: str, opset: int) -> dict[str, ir.Model]:
    """The language model as `file`, and the text graph.

    Args:
        model: a text encoder of transformers, in float32 on the CPU.
        reading: how the family reads it.
        file: of the language model's own graph.
        opset: of both.
    """
    reader = MarkedReader(model, reading)
    shape = EXAMPLE_BATCH, reading.tokenizer.length
    # Two tensors: the exporter takes one that is passed twice for one input.
    inputs = {
        ids_input(0): torch.zeros(shape, dtype=torch.int64),
        MASK_INPUT: torch.ones(shape, dtype=torch.int64),
    }
    traced = export_model(reader, inputs, [*reader.wanted, *reader.marks], opset)
    return {
        file: cut(traced, {}, {name: name for name in reader.marks}),
        TEXT_GRAPH: cut(traced, {}, {name: name for name in reader.wanted}),
    }
