"""ONNX Runtime sessions: opened without noise, their failures said in one message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.runtime.bound_graph import BoundGraph
from twinflow_core.runtime.cache_folder import user_cache
from twinflow_core.runtime.package import GET_AGAIN
from twinflow_core.runtime.providers import CPU, provider_options, with_fallback

FATAL_ONLY = 4


class ProviderFailed(TwinflowError):
    """ONNX Runtime has this provider, but it does not start here."""


class GraphSession:
    """One graph, ready to run.

    On a GPU its inputs and outputs lie in fixed buffers and the whole graph is replayed (`BoundGraph`).

    Args:
        path: the .onnx file; its weights are found relative to it.
        provider: ONNX Runtime's name of the execution provider.
        threads: within an operator; 0 lets ONNX Runtime take all cores. With 1 the same input gives the same
            bytes whatever the machine's load.

    Raises:
        TwinflowError: the file is missing or ONNX Runtime cannot read it.
        ProviderFailed: the provider does not start.
    """

    def __init__(self, path: Path, provider: str, threads: int = 0) -> None:
        self.path = path
        session = self._open(provider, provider_options(provider, user_cache() / "tensorrt"), threads)
        if session is None and provider != CPU:
            # A graph with a node that only the CPU has cannot be captured; it still runs.
            session = self._open(provider, {}, threads)
            captured = False
        else:
            captured = provider != CPU
        if session is None or session.get_providers()[0] != provider:
            raise ProviderFailed(f"{provider} does not start", where=str(path), fix="Use another provider.")
        self._session = session
        self._bound = BoundGraph(session, "cuda", captured) if provider != CPU else None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The graph's outputs.

        Raises:
            InfrastructureError: ONNX Runtime failed, e.g. for lack of memory.
        """
        try:
            return self._bound.run(inputs) if self._bound else self._session.run(None, dict(inputs))
        except Exception as error:
            raise InfrastructureError(
                "ONNX Runtime failed to run a graph.",
                where=f"{self.path}: {error}",
                fix="Try a smaller batch; if that does not help, verify the package.",
            ) from None

    def _open(self, provider: str, told: dict[str, str], threads: int) -> onnxruntime.InferenceSession | None:
        """The session; None if it did not open on this provider, which on the CPU is the file's fault."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.intra_op_num_threads = threads
        # Within a run threads spin for the next operator, which waking them would delay; between two runs they
        # would take the cores from the server that has the next request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=with_fallback(provider, told))
        except Exception as error:
            if provider != CPU:
                return None
            raise TwinflowError(
                "ONNX Runtime cannot load a graph of the package.",
                where=f"{self.path}: {error}",
                fix=GET_AGAIN,
            ) from None
