"""Promotions and a rollback under load: no request fails, and each image is that of the version that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served_model import changed_package, promote
from tests.service_load import Load, expected_images, health, wait_until_served
from tests.service_process import running_service
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection
from twinflow_core.runtime.loaded_package import LoadedPackage

pytestmark = pytest.mark.slow


def test_no_request_fails_and_none_is_mixed(
    registry: Registry, s3_connection: S3Connection, tiny_package: Path, tmp_path: Path
) -> None:
    folders = [changed_package(tiny_package, tmp_path / f"x{factor}", factor) for factor in (1, 2)]
    versions = [registry.publish(folder, {"run": folder.name}, {}) for folder in folders]
    packages = {
        version: LoadedPackage.from_folder(folder, "cpu", threads=1)
        for version, folder in zip(versions, folders, strict=True)
    }
    expected = expected_images(packages)
    promote(registry, "production", versions[0])
    options = (
        "--model",
        registry.model,
        "--channel",
        "production",
        "--refresh-seconds",
        "0.2",
        "--threads",
        "1",
    )
    with running_service(tmp_path, s3_connection.environment(), *options, "--batch", "4") as (url, _):
        load = Load(url, clients=2)
        promote(registry, "production", versions[1])
        wait_until_served(url, 2)
        registry.rollback("production", "tests", "under load")
        wait_until_served(url, 3)
        answers, _ = load.stop()
        assert health(url)["version"] == versions[0]
    assert answers.broken == []
    assert set(answers.statuses) == {200}
    assert answers.unnamed == 0
    assert answers.wrong(expected) == 0
    assert set(answers.by_version()) == set(versions)
    # The check itself: another version's picture would have been noticed.
    swapped = {one: expected[other] for one, other in zip(versions, reversed(versions), strict=True)}
    assert answers.wrong(swapped) == sum(answers.statuses.values())
