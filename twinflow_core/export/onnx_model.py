"""From a torch module to an ONNX model that holds nothing but the graph: no paths, no stack traces."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

# Two rows, so that the exporter does not take the batch for a constant 1.
EXAMPLE_BATCH = 2
# diffusers' upsampler asks whether the batch reaches 64, for a memory layout that no graph knows of. Tracing
# below that answers it; the graph itself takes any batch.
TRACED_BATCHES = 63


def export_model(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], opset: int) -> ir.Model:
    """Trace a module with a dynamic batch.

    Args:
        module: in evaluation mode.
        inputs: example tensors by name, in the order of the module's arguments, EXAMPLE_BATCH rows each first.
        outputs: the outputs' names.
        opset: of the default domain.

    Returns:
        The optimised model, its weights in memory.
    """
    batch = torch.export.Dim("batch", max=TRACED_BATCHES)
    shapes = tuple({0: batch} for _ in inputs)
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=opset,
            verbose=False,
        )
    model: ir.Model = program.model
    _strip(model)
    return model


def _strip(model: ir.Model) -> None:
    """Remove what tells of the machine and the source files; onnx_ir's pass covers nodes and graphs alone."""
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in _values(model.graph):
        value.metadata_props.clear()
        value.doc_string = None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own internals from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
