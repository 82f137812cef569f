"""A denoiser in fewer bits: float16, or matrix weights in 8 or 4 bits with float arithmetic.

What stays in float32:

- in all: the VAE decoder, which is a piece of its own, and inputs and outputs, so that a caller need not know;
- in fp16: normalisations, softmax and powers, whose sums overflow or lose small terms in float16's range;
- in int8 and int4: everything but the weights of matrix products on sequences. Modulation and pooled text are
  products of a single row, exported as Gemm and so left alone, as are matrices narrower than NARROW (first and last
  projection), where there is nothing to save.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Literal

import onnx
import onnx_ir as ir

Precision = Literal["fp32", "fp16", "int8", "int4"]
BITS = {"int8": 8, "int4": 4}
BLOCK = 32
NARROW = 32
# Operators whose result in float16 may be off by more than rounding.
FLOAT32_OPERATORS = (
    "LayerNormalization",
    "RMSNormalization",
    "Softmax",
    "Resize",
    "Clip",
    "ReduceMean",
    "Pow",
)


def in_precision(model: ir.Model, precision: Precision) -> ir.Model:
    """The same graph with the same inputs and outputs, computed or stored in another precision.

    Args:
        model: a denoiser in float32, weights in memory; it is left as it is.
        precision: "fp32" gives the model itself.
    """
    if precision == "fp32":
        return model
    proto = ir.to_proto(model)
    with _quiet():
        smaller = _float16(proto) if precision == "fp16" else _weight_only(proto, BITS[precision])
    converted = ir.from_proto(smaller)
    # The converters put their casts at the end; what copies a graph meets each value before its uses.
    converted.graph.sort()
    return converted


def _weight_only(proto: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        proto, bits=bits, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=_narrow(proto)
    )
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked: onnx.ModelProto = convert_float_to_float16(
        proto,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *FLOAT32_OPERATORS],
    )
    _drop_repeats(blocked.graph)
    return blocked


def _drop_repeats(graph: onnx.GraphProto) -> None:
    """The converter writes a cast once for each use of a tensor by one node; ONNX allows each name once."""
    declared: set[str] = set()
    kept = []
    for node in graph.node:
        if node.op_type != "Cast" or node.output[0] not in declared:
            kept.append(node)
        declared.update(node.output)
    del graph.node[:]
    graph.node.extend(kept)


def _narrow(proto: onnx.ModelProto) -> list[str]:
    """The matrix products whose weights have few rows or columns."""
    sizes = {tensor.name: min(tensor.dims, default=0) for tensor in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type == "MatMul" and sizes.get(node.input[1], 0) < NARROW
    ]


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all weights that the graph needs in memory."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' notes on their own internals from the user."""
    logger = logging.getLogger("onnxruntime.quantization")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
