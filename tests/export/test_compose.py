"""Pieces placed in one graph compute what they compute apart, with one copy of their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export.compose import Composition

WEIGHTS = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
PROMPTS = ["a red circle", "", "three yellow squares"]


def affine() -> ir.Model:
    """x @ WEIGHTS + 1, and a second output that nobody needs."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["product"], name="multiply"),
        helper.make_node("Add", ["product", "one"], ["y"], name="add"),
        helper.make_node("Neg", ["y"], ["unused"], name="negate"),
    ]
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y", "unused")
    ]
    constants = [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(np.float32([1]), "one")]
    graph = helper.make_graph(nodes, "affine", described[:1], described[1:], constants)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(model: ir.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_a_piece_placed_twice_shares_its_weights() -> None:
    piece = affine()
    whole = Composition(20)
    x = whole.input("x", ir.DataType.FLOAT, ("batch", 3))
    once, _ = whole.place(piece, x)
    half = whole.op("Mul", once, whole.constant(0.5))
    twice, _ = whole.place(piece, half)
    model = whole.finish({"y": (twice, ("batch", 3))})
    given = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    np.testing.assert_allclose(run(model, given), ((given @ WEIGHTS + 1) / 2) @ WEIGHTS + 1, atol=1e-6)
    assert len(model.graph.initializers) == 3
    assert [node.op_type for node in model.graph] == ["MatMul", "Add", "Mul", "MatMul", "Add"]
    np.testing.assert_allclose(run(piece, given), given @ WEIGHTS + 1, atol=1e-6)


@pytest.mark.slow
def test_text_encoders_equal_encode_prompt(tiny_package: Path, tiny_pipeline: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    pipeline = backbone.pipeline
    expected = backbone.encode_prompts(PROMPTS)
    length = pipeline.tokenizer_max_length
    ids = [
        tokenizer(
            PROMPTS, padding="max_length", max_length=length, truncation=True, return_tensors="np"
        ).input_ids
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
    ]
    session = onnxruntime.InferenceSession(tiny_package / "text.onnx", providers=["CPUExecutionProvider"])
    inputs = {"input_ids": ids[0].astype(np.int64), "input_ids_2": ids[1].astype(np.int64)}
    embeds, pooled = session.run(["prompt_embeds", "pooled_prompt_embeds"], inputs)
    assert tuple(embeds.shape) == tuple(expected.prompt_embeds.shape)
    torch.testing.assert_close(torch.from_numpy(embeds), expected.prompt_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(pooled), expected.pooled, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_more_evaluations_take_no_more_weights(tiny_package: Path) -> None:
    one, two = (
        onnx.load(tiny_package / f"nfe{steps}.onnx", load_external_data=False).graph.initializer
        for steps in (1, 2)
    )
    # Two more times, two more time embeddings, one more step's number.
    assert len(two) <= len(one) + 6
