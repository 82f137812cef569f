"""A consumer has what the channel serves, whole and checked, and keeps it while the store is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.served_model import promote
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.local.loopback import free_ports
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore
from twinflow_core.runtime.channel_follower import ChannelFollower, Release, follow_channel


def publish(registry: Registry, folder: Path, content: str) -> str:
    package = folder / content
    package.mkdir(parents=True)
    (package / "weights").write_text(content)
    return registry.publish(package, {"run": content}, {"score": 0.5})


def cut_off(follower: ChannelFollower) -> None:
    """From now on the follower's store does not answer."""
    dead = S3Connection(f"http://127.0.0.1:{free_ports(1)[0]}", "nobody", "nothing")
    follower.registry = Registry(ObjectStore(make_s3_client(dead), "twinflow"), follower.registry.model)


@pytest.fixture
def follower(registry: Registry, tmp_path: Path) -> ChannelFollower:
    return ChannelFollower(registry, "production", tmp_path / "cache")


def test_each_move_of_the_channel_is_noticed(
    registry: Registry, follower: ChannelFollower, tmp_path: Path
) -> None:
    with pytest.raises(TwinflowError, match="serves nothing yet"):
        follower.latest()
    one, two = publish(registry, tmp_path, "one"), publish(registry, tmp_path, "two")
    promote(registry, "production", one)
    first = follower.latest()
    assert (first.version, first.generation, first.previous) == (one, 1, None)
    assert (first.folder / "weights").read_text() == "one"
    assert follower.latest(first) is first
    promote(registry, "production", two)
    second = follower.latest(first)
    assert (second.version, second.generation, second.previous) == (two, 2, one)
    registry.hold("production", "tests", "to see")
    held = follower.latest(second)
    assert (held.version, held.generation, held.previous) == (two, 3, one)
    registry.rollback("production", "tests", "to see")
    back = follower.latest(held)
    assert (back.version, back.generation, back.previous) == (one, 4, two)


def test_without_the_store_the_last_release_is_remembered_if_it_is_right(
    registry: Registry, follower: ChannelFollower, tmp_path: Path
) -> None:
    assert follower.remembered() is None
    promote(registry, "production", publish(registry, tmp_path, "one"))
    release = follower.latest()
    again = ChannelFollower(registry, "production", tmp_path / "cache")
    cut_off(again)
    with pytest.raises(InfrastructureError, match="does not answer"):
        again.latest(release)
    assert again.remembered() == release
    assert ChannelFollower(registry, "staging", tmp_path / "cache").remembered() is None
    (release.folder / "weights").write_text("0ne")
    assert again.remembered() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 3, "generation": 1, "previous": null}'])
def test_a_torn_memory_is_no_memory(
    registry: Registry, follower: ChannelFollower, tmp_path: Path, content: str
) -> None:
    promote(registry, "production", publish(registry, tmp_path, "one"))
    follower.latest()
    (memory,) = (tmp_path / "cache/channels").iterdir()
    memory.write_text(content)
    assert follower.remembered() is None


def test_a_damaged_object_is_never_used(
    registry: Registry, follower: ChannelFollower, tmp_path: Path
) -> None:
    version = publish(registry, tmp_path, "one")
    promote(registry, "production", version)
    sha256 = registry.manifest(version).files[0].sha256
    registry.store.put(f"registry/{registry.model}/blobs/sha256/{sha256[:2]}/{sha256}", b"0ne")
    with pytest.raises(StoredObjectDamaged):
        follower.latest()
    assert follower.remembered() is None
    assert not (tmp_path / "cache/versions" / version).exists()


def test_nothing_half_written_is_left(registry: Registry, follower: ChannelFollower, tmp_path: Path) -> None:
    version = publish(registry, tmp_path, "one")
    promote(registry, "production", version)
    assert follower.latest() == Release(version, 1, None, tmp_path / "cache/versions" / version)
    assert not list((tmp_path / "cache").rglob("*.partial"))
    (memory,) = (tmp_path / "cache/channels").iterdir()
    assert json.loads(memory.read_text()) == {"version": version, "generation": 1, "previous": None}


def test_the_server_is_the_one_that_the_environment_names(
    registry: Registry, s3_connection: S3Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TwinflowError, match="No S3 server is named"):
        follow_channel("production", registry.model, "twinflow", tmp_path)
    for name, value in s3_connection.environment().items():
        monkeypatch.setenv(name, value)
    version = publish(registry, tmp_path, "one")
    promote(registry, "production", version)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    release = follow_channel("production", registry.model, "twinflow").latest()
    assert release.folder == tmp_path / "own/twinflow/versions" / version
