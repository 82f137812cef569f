"""A generator draws with one version at a time, moves with its channel, and survives the store."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.test_channel_follower import cut_off
from tests.served_model import changed_package, promote
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.registry import Registry
from twinflow_core.runtime.channel_follower import ChannelFollower
from twinflow_core.runtime.generator import Generator
from twinflow_core.runtime.loaded_package import LoadedPackage

pytestmark = pytest.mark.slow

PROMPTS = ["a red circle", "two blue squares", "a red circle", "", "unseen wörds ☆"]


@pytest.fixture
def versions(registry: Registry, tiny_package: Path, tmp_path: Path) -> list[str]:
    """Three published versions; production serves the first."""
    folders = [changed_package(tiny_package, tmp_path / f"x{factor}", factor) for factor in (1, 2, 3)]
    published = [registry.publish(folder, {"run": folder.name}, {}) for folder in folders]
    promote(registry, "production", published[0])
    return published


@pytest.fixture
def follower(registry: Registry, versions: list[str], tmp_path: Path) -> ChannelFollower:
    return ChannelFollower(registry, "production", tmp_path / "cache")


def following(follower: ChannelFollower, refresh_seconds: float = 0.0) -> Generator:
    return Generator.following(follower, "cpu", 1, 4, refresh_seconds)


def test_pictures_are_the_packages_own_at_any_batch_size(tiny_package: Path) -> None:
    expected = LoadedPackage.from_folder(tiny_package, "cpu").generate(PROMPTS, seed=3, steps=2).astype(int)
    for batch in (1, 2, 16):
        drawn = Generator.from_folder(tiny_package, "cpu", batch=batch).generate(PROMPTS, seed=3, steps=2)
        assert np.abs(drawn - expected).max() <= 1


def test_a_folder_has_a_version_and_no_previous_one(tiny_package: Path) -> None:
    generator = Generator.from_folder(tiny_package, "cpu")
    assert len(generator.serving.release.version) == 64
    assert generator.refresh() is False
    with pytest.raises(TwinflowError, match="no previous version"):
        generator.previous()
    assert generator.generate([]).shape == (0, 32, 32, 3)
    with pytest.raises(TwinflowError, match="in 3 step"):
        generator.generate(PROMPTS, steps=3)


def test_it_moves_with_its_channel(
    registry: Registry, follower: ChannelFollower, versions: list[str]
) -> None:
    generator = following(follower)
    before = generator.generate(PROMPTS, seed=1)
    assert generator.refresh() is False
    promote(registry, "production", versions[1])
    assert generator.refresh() is True
    assert generator.serving.release.version == versions[1]
    assert (generator.generate(PROMPTS, seed=1) != before).any()
    old = generator.previous()
    assert old.release.version == versions[0]
    assert generator.previous() is old
    registry.rollback("production", "tests", "to see")
    assert generator.refresh() is True
    assert generator.swaps == 2
    np.testing.assert_array_equal(generator.generate(PROMPTS, seed=1), before)


def test_the_store_may_go_away(registry: Registry, follower: ChannelFollower, tmp_path: Path) -> None:
    generator = following(follower)
    before = generator.generate(PROMPTS)
    cut_off(follower)
    assert generator.refresh() is False
    assert isinstance(generator.fault, InfrastructureError)
    np.testing.assert_array_equal(generator.generate(PROMPTS), before)
    restarted = following(follower)
    assert isinstance(restarted.fault, InfrastructureError)
    np.testing.assert_array_equal(restarted.generate(PROMPTS), before)
    follower.registry = registry
    assert restarted.refresh() is False
    assert restarted.fault is None
    elsewhere = ChannelFollower(registry, "production", tmp_path / "empty")
    cut_off(elsewhere)
    with pytest.raises(InfrastructureError, match="does not answer"):
        following(elsewhere)


def test_a_version_that_cannot_be_loaded_does_not_take_over(
    registry: Registry, follower: ChannelFollower, versions: list[str], tiny_package: Path, tmp_path: Path
) -> None:
    generator = following(follower)
    broken = changed_package(tiny_package, tmp_path / "broken", 1)
    (broken / "nfe1.onnx").write_bytes(b"no graph")
    promote(registry, "production", registry.publish(broken, {}, {}))
    assert generator.refresh() is False
    assert "cannot load a graph" in str(generator.fault)
    assert generator.serving.release.version == versions[0]
    promote(registry, "production", versions[2])
    assert generator.refresh() is True
    assert generator.fault is None


def test_under_load_each_call_draws_with_one_version(
    registry: Registry, follower: ChannelFollower, versions: list[str]
) -> None:
    packages = [LoadedPackage.from_folder(follower.fetch(version), "cpu", threads=1) for version in versions]
    expected = [package.generate(["a red circle"] * 6, seed=2).astype(int) for package in packages]
    assert all((np.abs(one - other).max() > 3) for one, other in itertools.pairwise(expected))
    generator = following(follower, refresh_seconds=0.05)
    seen: list[int | None] = []
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            images = generator.generate(["a red circle"] * 6, seed=2).astype(int)
            fits = [i for i, each in enumerate(expected) if np.abs(images - each).max() <= 1]
            seen.append(fits[0] if fits else None)

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in versions[1:]:
        promote(registry, "production", version)
        wait_for(lambda wanted=version: generator.serving.release.version == wanted)
    done.set()
    for thread in threads:
        thread.join()
    generator.close()
    assert None not in seen
    assert {0, 1} <= set(seen)


def wait_for(reached: object, seconds: float = 20.0) -> None:
    assert callable(reached)
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
