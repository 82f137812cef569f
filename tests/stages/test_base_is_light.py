"""The base stage moves files: it loads neither torch nor diffusers, which take seconds of every run."""

from __future__ import annotations

import subprocess
import sys


def test_no_heavy_library_is_loaded() -> None:
    said = "import sys, twinflow_core.stages.base; print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
