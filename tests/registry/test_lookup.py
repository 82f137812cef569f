from __future__ import annotations

from pathlib import Path

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.lookup import find_version
from twinflow_core.registry.registry import Registry


def test_a_version_is_found_by_its_beginning(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    versions = {registry.publish(tmp_path, {"run": str(run)}, {}) for run in range(2)}
    for version in versions:
        assert find_version(registry, version) == version
        assert find_version(registry, version[:40]) == version
    with pytest.raises(TwinflowError, match="2 versions"):
        find_version(registry, "")
    with pytest.raises(TwinflowError, match="No version begins with `no`"):
        find_version(registry, "no")
