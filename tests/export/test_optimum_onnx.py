"""optimum-onnx reads the package's folders: in an environment of its own, as it pins older libraries.

Fetches some 20 MB of wheels, so it runs when asked for: `python -m pytest -m external tests/export`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

# As optimum-onnx 0.1.0 pins them; torch and ONNX Runtime are those of this environment.
WHEELS = (
    "optimum-onnx==0.1.0",
    "optimum==2.1.0",
    "transformers==4.57.6",
    "diffusers==0.35.2",
    "huggingface_hub==0.36.0",
    "tokenizers==0.22.1",
)
PROGRAM = Path(__file__).with_name("optimum_check.py")


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("optimum") / "venv"
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(packages),
        *WHEELS,
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the package index gave no wheels: {done.stderr.strip()[-200:]}")
    # Behind them on the path, what they share with this environment.
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "shared.pth").write_text("\n".join(shared) + "\n")
    return folder / "bin/python"


@pytest.mark.external
@pytest.mark.slow
def test_optimum_draws_what_diffusers_draws(
    other_python: Path, tiny_package: Path, tiny_pipeline: Path
) -> None:
    command = [str(other_python), str(PROGRAM), str(tiny_package), str(tiny_pipeline)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["pipeline"] == "ORTStableDiffusion3Pipeline"
    assert told["max_abs"] < 1e-3
