"""Which of ONNX Runtime's execution providers this machine can really use, and why not the others.

ONNX Runtime lists the providers it was built with, and on a machine without their libraries prints pages
before it falls back. Here the libraries are looked for first.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from twinflow_core.errors import TwinflowError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
SHORT_NAMES = {"tensorrt": TENSORRT, "cuda": CUDA, "cpu": CPU}

DRIVER = (("libcuda.so.1", "no NVIDIA driver"),)
CUDA_LIBRARIES = (
    ("libcublasLt.so.13", "CUDA 13's cuBLAS is missing"),
    ("libcudnn.so.9", "cuDNN 9 is missing"),
)
NEEDS = {
    CPU: (),
    CUDA: (*DRIVER, *CUDA_LIBRARIES),
    TENSORRT: (*DRIVER, *CUDA_LIBRARIES, ("libnvinfer.so.10", "TensorRT 10 is missing")),
}


@dataclass(frozen=True)
class ProviderChoice:
    """The provider to use, in ONNX Runtime's name, and those passed over with the reason."""

    name: str
    skipped: tuple[tuple[str, str], ...]


def choose_provider(wanted: str = "auto", failed: Mapping[str, str] | None = None) -> ProviderChoice:
    """Pick a provider.

    Args:
        wanted: "auto" (TensorRT, else CUDA, else CPU), or one of "tensorrt", "cuda", "cpu".
        failed: providers that were tried and did not start, in ONNX Runtime's names, each with its reason.

    Raises:
        TwinflowError: the provider asked for is unknown or cannot be used here.
    """
    if wanted == "auto":
        skipped: list[tuple[str, str]] = []
        for name in SHORT_NAMES.values():
            reason = (failed or {}).get(name) or why_not(name)
            if reason is None:
                return ProviderChoice(name, tuple(skipped))
            skipped.append((name, reason))
        raise TwinflowError(
            "ONNX Runtime has no usable provider.", where=str(skipped), fix="Install onnxruntime again."
        )
    name = SHORT_NAMES.get(wanted, "")
    if not name:
        raise TwinflowError(
            f"Unknown provider `{wanted}`.", where="providers", fix=f"Use auto, {', '.join(SHORT_NAMES)}."
        )
    reason = why_not(name)
    if reason is not None:
        raise TwinflowError(
            f"{name} cannot be used: {reason}.",
            where="providers",
            fix="Install what is missing, or use auto.",
        )
    return ProviderChoice(name, ())


def with_fallback(provider: str, told: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The providers of a session: behind TensorRT, CUDA for the nodes that it lacks, which would go to the CPU.

    Args:
        provider: ONNX Runtime's name.
        told: its options.
    """
    return [(provider, told), *([(CUDA, {})] if provider == TENSORRT else [])]


def provider_options(provider: str, engines: Path) -> dict[str, str]:
    """How a provider is set up: CUDA graphs for what has fixed shapes; TensorRT keeps what it has built.

    Args:
        provider: ONNX Runtime's name.
        engines: folder where TensorRT's engines are kept from one start to the next.
    """
    if provider == CUDA:
        return {"enable_cuda_graph": "1", "arena_extend_strategy": "kSameAsRequested"}
    if provider == TENSORRT:
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_cuda_graph_enable": "1",
        }
    return {}


def why_not(provider: str) -> str | None:
    """Why a provider cannot be used here, or None if it can."""
    if provider not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime lacks it"
    return next((reason for library, reason in NEEDS[provider] if not _loads(library)), None)


def _loads(library: str) -> bool:
    """Whether the loader finds a shared library, or a wheel under `nvidia/` or `tensorrt_libs/` has it."""
    return any(_opens(candidate) for candidate in (library, *_in_wheels(library)))


def _opens(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _in_wheels(library: str) -> Sequence[str]:
    folders: list[str] = []
    for package in ("nvidia", "tensorrt_libs"):
        spec = importlib.util.find_spec(package)
        folders += list(spec.submodule_search_locations or ()) if spec else []
    return [str(path) for folder in folders for path in Path(folder).glob(f"**/{library}")]
