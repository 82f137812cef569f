"""ONNX Runtime sessions: opened without noise, their failures said in one message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.runtime.package import GET_AGAIN

FATAL_ONLY = 4


class GraphSession:
    """One graph, ready to run.

    Args:
        path: the .onnx file; its weights are found relative to it.
        provider: ONNX Runtime's name of the execution provider.
        threads: within an operator; 0 lets ONNX Runtime take all cores. With 1 the same input gives the same
            bytes whatever the machine's load.

    Raises:
        TwinflowError: the file is missing or ONNX Runtime cannot read it.
    """

    def __init__(self, path: Path, provider: str, threads: int = 0) -> None:
        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:
            raise TwinflowError(
                "ONNX Runtime cannot load a graph of the package.", where=f"{path}: {error}", fix=GET_AGAIN
            ) from None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The graph's outputs.

        Raises:
            InfrastructureError: ONNX Runtime failed, e.g. for lack of memory.
        """
        try:
            return self._session.run(None, inputs)
        except Exception as error:
            raise InfrastructureError(
                "ONNX Runtime failed to run a graph.",
                where=f"{self.path}: {error}",
                fix="Try a smaller batch; if that does not help, verify the package.",
            ) from None
