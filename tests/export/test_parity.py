"""Parity is small for the right package, large for a wrong one, and never hides what is not finite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_pipeline import build_tiny_pipeline
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export.parity import HIGHEST_PSNR, measure_parity, round_up
from twinflow_core.runtime.loaded_package import LoadedPackage

with_package = [pytest.mark.slow]


@given(st.floats(1e-12, 1.0))
def test_rounding_goes_up_and_to_one_digit(value: float) -> None:
    rounded = round_up(value)
    assert value <= rounded <= 2 * value * (1 + 1e-9)
    assert rounded == float(f"{rounded:.0e}")


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (1.7e-6, 2e-6), (2e-6, 2e-6), (9.5e-7, 1e-6)])
def test_rounding_of_known_values(value: float, expected: float) -> None:
    assert round_up(value) == expected


class TestPackage:
    pytestmark = with_package

    def test_the_package_draws_what_torch_draws(self, tiny_package: Path) -> None:
        parity = json.loads((tiny_package / "parity.json").read_text())
        assert 0 <= parity["max_abs"] <= 1e-4
        assert 80 <= parity["psnr"] <= HIGHEST_PSNR
        assert parity["finite"] == 1

    def test_another_model_is_noticed(self, tiny_package: Path, tmp_path: Path) -> None:
        other = load_backbone(build_tiny_pipeline(tmp_path / "other", seed=1))
        parity = measure_parity(other, LoadedPackage.from_folder(tiny_package, "cpu", threads=1))
        assert parity["max_abs"] > 1e-2
        assert parity["psnr"] < 40

    def test_values_that_are_not_finite_are_noticed(
        self, tiny_package: Path, tiny_pipeline: Path, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(tiny_package, broken)
        data = broken / "vae_decoder/model.onnx_data"
        data.write_bytes(np.full(data.stat().st_size // 4, np.nan, np.float32).tobytes())
        generator = LoadedPackage.from_folder(broken, "cpu", verify=False, threads=1)
        parity = measure_parity(load_backbone(tiny_pipeline), generator)
        assert parity == {"max_abs": 1.0, "psnr": 0, "finite": 0}
