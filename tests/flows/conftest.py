"""One clone with one run that is done: what the end-to-end tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline_clone import CANARY, make_clone, retrain
from twinflow_core.local.services import Services


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with tiny parameters and a tiny base."""
    return make_clone(tmp_path_factory.mktemp("clone") / "pipeline")


@pytest.fixture(scope="session")
def env(services: Services) -> dict[str, str]:
    """What a command needs to use the session's services, and a secret that is none of its business."""
    return {**services.environment(), "HF_TOKEN": CANARY}


@pytest.fixture(scope="session")
def first(clone: Path, env: dict[str, str]) -> dict[str, Any]:
    """The first run of the clone."""
    return retrain(clone, env)
