"""The denoiser's graphs out of one trace: with the transformer's own call, and with time as a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import EMBEDS
from twinflow_core.errors import TwinflowError
from twinflow_core.export.cut import cut, input_names
from twinflow_core.export.families import FAMILIES
from twinflow_core.export.graphs import HIDDEN, STOCK, STOCK_OUTPUT, TIME, VELOCITY, MarkedVelocity
from twinflow_core.export.onnx_model import EXAMPLE_BATCH, export_model

# The exporter asks any input for the batch's size; the prompts are an input of every graph.
COUNTED_BY_PROMPTS = {TIME: EMBEDS, HIDDEN: EMBEDS}


class DenoiserGraphs:
    """One traced denoiser.

    Args:
        backbone: the model, in float32 on the CPU.
        opset: of all graphs.

    Raises:
        TwinflowError: models of this family have no graphs.
    """

    def __init__(self, backbone: Backbone, opset: int) -> None:
        if backbone.family not in FAMILIES:
            raise TwinflowError(
                f"Models of the family {backbone.family} have no graphs.",
                where="export",
                fix=f"Use one of: {', '.join(sorted(FAMILIES))}.",
            )
        self._backbone, self._family = backbone, FAMILIES[backbone.family]
        self.opset = opset
        # As long as prompts get: shorter ones are filled up to this length.
        self._example = backbone.encode_prompts(["word " * backbone.max_tokens] * EXAMPLE_BATCH)
        self._shape = backbone.latent_shape
        inputs = {
            HIDDEN: torch.randn(EXAMPLE_BATCH, *self._shape),
            TIME: torch.ones(EXAMPLE_BATCH),
            **self._example.tensors(),
        }
        with self._family.traceable(backbone):
            self._marked = MarkedVelocity(backbone, self._family, self._example)
            self.traced = export_model(self._marked, inputs, self._marked.outputs, opset)

    def at_any_time(self) -> ir.Model:
        """One evaluation: the inputs and the output as the transformer and optimum-onnx name them.

        A family whose transformer takes no tensors (Z-Image: lists) keeps this project's names.
        """
        marked = self._marked
        if not marked.has_stock_call:
            return cut(self.traced, {}, {VELOCITY: "out_hidden_states"}, COUNTED_BY_PROMPTS)
        given = {ours: name for name, ours in marked.renamed.items()}
        given |= {STOCK + name: name for name in marked.cut_at}
        return cut(self.traced, given, {STOCK_OUTPUT: "out_hidden_states"}, COUNTED_BY_PROMPTS)

    def at_given_time(self) -> ir.Model:
        """Latents, what depends on time alone, and conditioning to the velocity; the time itself is gone.

        Raises:
            RuntimeError: something else depends on the time; the family's `time_only` is not complete.
        """
        given = {name: name for name in self._marked.time_values}
        model = cut(self.traced, given, {VELOCITY: VELOCITY}, COUNTED_BY_PROMPTS)
        if TIME in input_names(model):
            raise RuntimeError("the network needs the time beyond what its family says")
        return model

    def time_values(self, times: Sequence[float]) -> list[Mapping[str, np.ndarray]]:
        """The inputs of `at_given_time` that depend on time alone, for each time in [0, 1], one row each."""
        with self._family.traceable(self._backbone):
            values = [self._marked.at(time, self._example, self._shape) for time in times]
        return [{name: value.numpy() for name, value in each.items()} for each in values]
