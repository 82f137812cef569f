"""An RMS norm leaves as ONNX Runtime knows it, and runs as one node with torch's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from twinflow_core.export.onnx_model import export_model

pytestmark = pytest.mark.slow


class Spelled(nn.Module):
    """The norm as most models write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2.0, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("norm", [Spelled(16), nn.RMSNorm(16, eps=1e-6)], ids=["spelled", "torch"])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_the_norm_is_one_node(norm: nn.Module, scale: float, tmp_path: Path) -> None:
    x = scale * torch.randn(2, 5, 16)
    model = export_model(norm, {"x": x}, ["y"], opset=20)
    assert "Reciprocal" not in [node.op_type for node in model.graph]
    ir.save(model, tmp_path / "norm.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "norm.onnx", options, providers=["CPUExecutionProvider"]
    )
    optimised = ir.load(tmp_path / "optimised.onnx")
    assert [node.op_type for node in optimised.graph] == ["SimplifiedLayerNormalization"]
    (y,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, norm(x).detach(), rtol=2e-6, atol=1e-6)
