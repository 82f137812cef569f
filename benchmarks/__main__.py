"""`make bench`: every measurement one after the other, each as JSON under benchmarks/results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
MEASUREMENTS = ("serving_speed", "gate_calibration")

for name in MEASUREMENTS:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=FOLDER.parent, check=True)
