"""Versions of the tiny package that draw differently, and channels that serve them, for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from twinflow_core.registry.channel import Entry
from twinflow_core.registry.registry import Registry
from twinflow_core.runtime.package import MANIFEST, file_sha256

DECODER = "vae_decoder/model.onnx_data"


def changed_package(package: Path, folder: Path, factor: float) -> Path:
    """A copy whose decoder's weights are `factor` times as large: another version, other pictures, no export."""
    shutil.copytree(package, folder)
    data = folder / DECODER
    weights = np.frombuffer(data.read_bytes(), np.float32) * np.float32(factor)
    data.write_bytes(weights.tobytes())
    rerecord(folder, DECODER)
    return folder


def rerecord(package: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed on purpose."""
    path = package / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"][name]["sha256"] = file_sha256(package / name)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def promote(registry: Registry, channel: str, version: str) -> Entry:
    """Make a channel serve a published version, by a decision made against it as it is now."""
    generation = registry.head(channel).generation
    decision = registry.record_decision(
        {"candidate": version, "channel": channel, "generation": generation, "outcome": "promote"}
    )
    return registry.promote(channel, version, decision, generation, "tests", "as the test says")
