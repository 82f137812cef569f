"""The table of samples goes to parquet and back, with the same bytes each time."""

import math
from pathlib import Path

import numpy as np

from twinflow_core.evaluation.samples import Sample, png_bytes, read_samples, write_samples


def make(correct: float, pixels: np.ndarray) -> Sample:
    return Sample(
        "candidate", "nfe1", "colors", "seen pair", "0001", "a red circle", 2, correct, "", png_bytes(pixels)
    )


def test_there_and_back(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    samples = [make(1.0, pixels), make(float("nan"), pixels + 1)]
    for name in ("one", "two"):
        write_samples(samples, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = read_samples(tmp_path / "one")
    assert again[0] == samples[0]
    assert math.isnan(again[1].correct)
    assert np.array_equal(again[1].pixels, pixels + 1)
