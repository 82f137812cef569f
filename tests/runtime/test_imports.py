"""Serving needs numpy, tokenizers and ONNX Runtime; what training needs never comes with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FORBIDDEN = {"torch", "transformers", "diffusers", "prefect", "dvc", "onnx", "onnxscript"}


@pytest.mark.parametrize(
    "module",
    [
        "twinflow_core.runtime.generator",
        "twinflow_core.runtime.serving_check",
        "twinflow_core.service.server",
    ],
)
def test_importing_the_runtime_imports_no_torch(module: str) -> None:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(answer.stdout)}
    assert "onnxruntime" in loaded
    assert not loaded & FORBIDDEN
