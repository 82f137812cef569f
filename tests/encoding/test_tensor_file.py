"""A file that was written row by row is a safetensors file like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from twinflow_core.encoding.tensor_file import TensorFile

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))


@given(st.lists(st.tuples(st.sampled_from(TYPES), SHAPES), min_size=1, max_size=5), st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_library_reads_what_was_written_in_any_order(tmp_path_factory, kinds, order) -> None:
    tensors = {f"t{i}": torch.randint(0, 2, shape).to(kind) for i, (kind, shape) in enumerate(kinds)}
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    places = [(name, row) for name, value in tensors.items() for row in range(len(value))]
    order.shuffle(places)
    with TensorFile(
        path, {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    ) as file:
        for name, row in places:
            file.write(name, row, tensors[name][row : row + 1])
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize(
    ("first", "rows"), [(3, torch.zeros(2, 2)), (0, torch.zeros(1, 3)), (0, torch.zeros(1, 2).half())]
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, first: int, rows: torch.Tensor) -> None:
    layout = {"a": (torch.float32, (4, 2))}
    with TensorFile(tmp_path / "x", layout) as file, pytest.raises(ValueError, match="of a"):
        file.write("a", first, rows)
