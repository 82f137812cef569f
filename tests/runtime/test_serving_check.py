"""The serving gate's own process: it measures, and draws the images that evaluation would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.served_model import rerecord
from twinflow_core.noise import image_noise
from twinflow_core.runtime.loaded_package import LoadedPackage

pytestmark = pytest.mark.slow

WANTED = [
    {"prompt_id": f"p{row // 2}", "prompt": "a red circle", "sample": row % 2, "seed": 7, "task": "colors"}
    for row in range(4)
]


def check(package: Path, folder: Path, wanted: object, *options: str) -> subprocess.CompletedProcess[str]:
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps(wanted))
    module = [sys.executable, "-m", "twinflow_core.runtime.serving_check"]
    paths = ["--package", str(package), "--prompts", str(prompts), "--out", str(folder / "out")]
    return subprocess.run([*module, *paths, "--repeats", "3", *options], capture_output=True, text=True)


def test_memory_is_that_of_the_check_and_not_of_who_started_it(tiny_package: Path, tmp_path: Path) -> None:
    ballast = np.ones(1 << 27)
    answer = check(tiny_package, tmp_path, WANTED)
    assert json.loads(answer.stdout)["rss_mb"] < ballast.nbytes >> 20, answer.stderr


@pytest.mark.parametrize("steps", [1, 2])
def test_measures_and_draws(tiny_package: Path, tmp_path: Path, steps: int) -> None:
    answer = check(tiny_package, tmp_path, WANTED, "--steps", str(steps), "--batch", "2")
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result == json.loads((tmp_path / "out/result.json").read_text())
    assert result["finite"] == 1
    assert "sizes" not in result
    assert 0 < result["p50_ms"] <= result["p95_ms"]
    assert 10 < result["rss_mb"] < 4000
    assert (result["images"], result["steps"], result["batch"]) == (4, steps, 2)
    assert json.loads((tmp_path / "out/samples.json").read_text()) == WANTED
    with np.load(tmp_path / "out/images.npz") as stored:
        images = stored["images"]
    generator = LoadedPackage.from_folder(tiny_package, "cpu")
    shape = generator.manifest.latent_shape
    noises = [image_noise(7, f"p{row // 2}/{row % 2}", steps, shape) for row in range(4)]
    expected = generator.generate_from_noise(np.stack(noises), ["a red circle"] * 4)
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1


def test_values_that_are_not_finite_are_reported(tiny_package: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_package, tmp_path / "broken"))
    data = broken / "vae_decoder/model.onnx_data"
    data.write_bytes(np.full(data.stat().st_size // 4, np.nan, np.float32).tobytes())
    rerecord(broken, "vae_decoder/model.onnx_data")
    answer = check(broken, tmp_path, WANTED)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["finite"] == 0


def test_the_worst_size_counts(sized_package: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(sized_package, tmp_path / "broken"))
    # What the other size has for itself: its positions.
    data = broken / "nfe1_64x32.onnx_data"
    data.write_bytes(np.full(data.stat().st_size // 4, np.nan, np.float32).tobytes())
    rerecord(broken, data.name)
    answer = check(broken, tmp_path, WANTED)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert {size: each["finite"] for size, each in result["sizes"].items()} == {"32x32": 1, "64x32": 0}
    assert result["finite"] == 0
    for name in ("p50_ms", "p95_ms"):
        assert result[name] == max(each[name] for each in result["sizes"].values())
    with np.load(tmp_path / "out/images.npz") as stored:
        assert stored["images"].shape == (4, 32, 32, 3)


def test_a_damaged_package_is_refused(tiny_package: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_package, tmp_path / "broken"))
    (broken / "nfe1.onnx").write_bytes(b"")
    answer = check(broken, tmp_path, WANTED)
    assert answer.returncode == 2
    assert "nfe1.onnx has 0 bytes" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("wanted", [{}, [{"prompt": "a"}], ["a"]])
def test_wrong_prompts_are_refused(tiny_package: Path, tmp_path: Path, wanted: object) -> None:
    answer = check(tiny_package, tmp_path, wanted)
    assert answer.returncode == 2
    assert "no list of images" in answer.stderr
