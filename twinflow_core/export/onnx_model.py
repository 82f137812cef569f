"""From a torch module to an ONNX model that holds nothing but the graph: no paths, no stack traces."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import _no_op
from torch import Tensor, nn
from torch.nn import functional

from twinflow_core.export.root_mean_square import divide_by_roots

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

    Raises:
        RuntimeError: the module makes a constant of the batch.
    """
    batch = torch.export.Dim("batch", max=TRACED_BATCHES)
    shapes = tuple({0: batch} for _ in inputs)
    with (
        _quiet(),
        torch.no_grad(),
        _small_numbers_count(),
        _no_pairs(),
        _masks_by_query(),
        _blind_queries_get_zeros(),
    ):
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
    if any(isinstance(value.shape[0], int) for value in model.graph.inputs if value.shape):
        raise RuntimeError(
            f"{type(module).__name__} looks at the number of rows, so that its graph takes no other"
        )
    divide_by_roots(model)
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
def _small_numbers_count() -> Iterator[None]:
    """Keep onnxscript's optimiser from taking 1e-15 for 0.

    It drops additions of what is within 1e-8 of zero. Linear attention and the DC-AE divide by a sum plus 1e-15:
    where the sum is zero, 0 / 0 would come out. ONNX Runtime drops true zeros itself.
    """
    rules = rewriter._DEFAULT_REWRITE_RULES
    dropped = set(map(id, _no_op.rules))
    rewriter._DEFAULT_REWRITE_RULES = tuple(rule for rule in rules if id(rule) not in dropped)
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules


@contextmanager
def _no_pairs() -> Iterator[None]:
    """Leave out the optimiser's rules that look at pairs of nodes.

    For every node they list the whole graph: a third of the time that a model of a thousand nodes takes, and it grows
    with the square. All that they give is one Split in place of two Slices.
    """
    rules = rewriter._DEFAULT_REWRITE_RULES
    rewriter._DEFAULT_REWRITE_RULES = tuple(
        rule for rule in rules if rule._target_pattern.has_single_output_node
    )
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules


@contextmanager
def _masks_by_query() -> Iterator[None]:
    """Give attention masks a row for each query while tracing.

    ONNX Runtime's Attention (opset 23) refuses a mask [B, H, 1, keys] that torch repeats over the queries.
    """
    stock = functional.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *more: Any, **told: Any
    ) -> Tensor:
        if attn_mask is not None and attn_mask.shape[-2] == 1:
            attn_mask = attn_mask.expand(*attn_mask.shape[:-2], query.shape[-2], attn_mask.shape[-1])
        return stock(query, key, value, attn_mask, *more, **told)

    with _attention_as(attention):
        yield


@contextmanager
def _blind_queries_get_zeros() -> Iterator[None]:
    """Give zeros to queries that may look at no key while tracing, as torch does; ONNX gives the mean of all values.

    So it is with padding in front of a text, and FLUX.2 reads the states of padding. Masks that are the same for all
    queries leave every query something to look at.
    """
    stock = functional.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *more: Any, **told: Any
    ) -> Tensor:
        attended = stock(query, key, value, attn_mask, *more, **told)
        if attn_mask is None or attn_mask.dtype != torch.bool or attn_mask.shape[-2] == 1:
            return attended
        return torch.where(attn_mask.any(dim=-1, keepdim=True), attended, 0.0)

    with _attention_as(attention):
        yield


@contextmanager
def _attention_as(attention: Callable[..., Tensor]) -> Iterator[None]:
    stock = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = stock


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
