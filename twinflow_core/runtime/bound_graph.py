"""A graph on a device with fixed buffers: inputs are copied in, the graph is replayed, outputs are copied out.

Batches are filled up to powers of two, so that few sets of buffers serve all sizes and each shape is captured
once as a CUDA graph. Written from ONNX Runtime's documentation of I/O binding and CUDA graphs: the binding is
tested on the CPU's own device; capture and replay have not been run here, for want of a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

BATCH_AXIS = "batch"
# ONNX Runtime's element types of what packages take and give.
NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class _Buffers:
    """Inputs and outputs of one batch size at fixed addresses, and the run that uses them."""

    inputs: dict[str, Any]
    outputs: list[Any]
    binding: Any
    options: Any


class BoundGraph:
    """Runs one session through buffers on a device. One run at a time; safe to share between threads.

    Args:
        session: opened on the device's provider.
        device: "cuda", or "cpu".
        capture: whether the session was opened with CUDA graphs, which are told apart by batch size.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str, capture: bool) -> None:
        self._session = session
        self._device = device
        self._capture = capture
        self._buffers: dict[int, _Buffers] = {}
        self._lock = Lock()
        self._batch_axes = {
            each.name: each.shape.index(BATCH_AXIS)
            for each in (*session.get_inputs(), *session.get_outputs())
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The graph's outputs for inputs whose batch axis has N >= 1 rows."""
        name, array = next(iter(inputs.items()))
        rows = array.shape[self._batch_axes[name]]
        with self._lock:
            buffers = self._buffers_for(1 << (rows - 1).bit_length())
            for name, value in buffers.inputs.items():
                value.update_inplace(self._filled_up(inputs[name], name, value.shape()))
            buffers.binding.synchronize_inputs()
            self._session.run_with_iobinding(buffers.binding, buffers.options)
            buffers.binding.synchronize_outputs()
            # Copies: the next run writes over these buffers.
            return [output.numpy()[:rows].copy() for output in buffers.outputs]

    def _filled_up(self, array: NDArray[Any], name: str, shape: list[int]) -> NDArray[Any]:
        axis = self._batch_axes[name]
        missing = shape[axis] - array.shape[axis]
        if missing:
            pads = [(0, missing if dimension == axis else 0) for dimension in range(array.ndim)]
            array = np.pad(array, pads)
        if list(array.shape) != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
        return np.ascontiguousarray(array)

    def _buffers_for(self, batch: int) -> _Buffers:
        if batch not in self._buffers:
            binding = self._session.io_binding()
            inputs = {each.name: self._buffer(each, batch) for each in self._session.get_inputs()}
            outputs = [(each.name, self._buffer(each, batch)) for each in self._session.get_outputs()]
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in outputs:
                binding.bind_ortvalue_output(name, value)
            options = onnxruntime.RunOptions()
            if self._capture:
                options.add_run_config_entry("gpu_graph_id", str(batch))
            self._buffers[batch] = _Buffers(inputs, [value for _, value in outputs], binding, options)
        return self._buffers[batch]

    def _buffer(self, described: Any, batch: int) -> Any:
        shape = [batch if axis == BATCH_AXIS else axis for axis in described.shape]
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shape, NUMPY_TYPES[described.type], self._device, 0
        )
