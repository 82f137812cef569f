"""What torch and ONNX Runtime can compute on, and why not on a GPU.

Run as `python -m twinflow_core.local.accelerators torch|onnxruntime`: importing them takes seconds and may
fail in ways that no `try` survives, so the doctor asks a child process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twinflow_core.local.finding import Finding, ask, ask_python

MODULE = "twinflow_core.local.accelerators"
CUDA_PROVIDER = "CUDAExecutionProvider"
LOAD_FAULT = "with error: "


def check_torch(root: Path) -> Finding:
    """The version of torch, and whether it reaches a GPU."""
    found, answer = ask_python(["-m", MODULE, "torch"], root)
    if found is None:
        return Finding(
            "torch", "wrong", answer.last_error, "Install requirements.lock into this environment."
        )
    version = f"torch {found['version']}"
    if found["device"]:
        return Finding("torch", "ok", f"{version}, computes on {found['device']}")
    gpus = _nvidia_gpus(root)
    if not gpus:
        return Finding("torch", "ok", f"{version}, computes on the CPU: this machine shows no NVIDIA GPU")
    if not found["cuda_build"]:
        return Finding(
            "torch", "note", f"{version} is built for the CPU; {gpus} is not used", "Install torch for CUDA."
        )
    return Finding(
        "torch",
        "note",
        f"{version} (CUDA {found['cuda_build']}) does not reach {gpus}: {found['fault']}",
        "Update the NVIDIA driver, or install a torch built for the CUDA version that it supports.",
    )


def check_onnxruntime(root: Path) -> Finding:
    """The version of ONNX Runtime, and whether it reaches a GPU."""
    found, answer = ask_python(["-m", MODULE, "onnxruntime"], root)
    if found is None:
        return Finding(
            "ONNX Runtime", "wrong", answer.last_error, "Install requirements.lock into this environment."
        )
    version = f"ONNX Runtime {found['version']}"
    if CUDA_PROVIDER in found["used"]:
        return Finding("ONNX Runtime", "ok", f"{version}, computes on the GPU")
    gpus = _nvidia_gpus(root)
    if not gpus:
        return Finding(
            "ONNX Runtime", "ok", f"{version}, computes on the CPU: this machine shows no NVIDIA GPU"
        )
    if CUDA_PROVIDER not in found["built_with"]:
        return Finding(
            "ONNX Runtime",
            "note",
            f"{version} is built for the CPU; {gpus} is not used",
            "Install onnxruntime-gpu in place of onnxruntime.",
        )
    reason = next(
        (line.split(LOAD_FAULT)[1].strip() for line in answer.errors.splitlines() if LOAD_FAULT in line),
        "the provider did not load",
    )
    return Finding(
        "ONNX Runtime",
        "note",
        f"{version} does not reach {gpus}: {reason}",
        "Install CUDA 13 and cuDNN 9 as its GPU package needs them, or a torch for CUDA, which brings them.",
    )


def _nvidia_gpus(root: Path) -> str:
    answer = ask(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], root)
    return ", ".join(answer.output.split("\n")).strip(", ") if answer.code == 0 else ""


def _look_at_torch() -> dict[str, Any]:
    import torch

    device = fault = ""
    try:
        if torch.version.cuda:
            torch.zeros(1, device="cuda")
            device = torch.cuda.get_device_name()
    except (RuntimeError, AssertionError) as error:
        fault = str(error).splitlines()[0]
    return {
        "version": torch.__version__,
        "cuda_build": torch.version.cuda or "",
        "device": device,
        "fault": fault,
    }


def _look_at_onnxruntime() -> dict[str, Any]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    built_with = onnxruntime.get_available_providers()
    if CUDA_PROVIDER in built_with:
        onnxruntime.preload_dlls()
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=onnx.Version.IR_VERSION_2023_5_5
    )
    wanted = [name for name in (CUDA_PROVIDER, "CPUExecutionProvider") if name in built_with]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=wanted)
    return {
        "version": onnxruntime.__version__,
        "built_with": built_with,
        "used": session.get_providers(),
    }


if __name__ == "__main__":
    looks = {"torch": _look_at_torch, "onnxruntime": _look_at_onnxruntime}
    print(json.dumps(looks[sys.argv[1]]()))
