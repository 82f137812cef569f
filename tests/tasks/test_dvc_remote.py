"""DVC's remote in the bucket, when it holds or hands out something else than was pushed: real DVC, real S3."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.dvc import DvcTree, cache_folder, child_environment, share_cache
from tasks.dvc_remote import pull
from tests.fault_proxy import FaultProxy, Request, flip_a_byte, only
from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import ExitCode, InfrastructureError
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.s3 import S3Connection
from twinflow_core.registry.store import ObjectStore

pytestmark = pytest.mark.slow
CONTENT = bytes(range(256)) * 200
TARGET = "data.dvc"


@pytest.fixture
def tree(tmp_path: Path, fresh_bucket: ObjectStore, s3_connection: S3Connection) -> DvcTree:
    """A tree whose one folder is in DVC's remote, and neither here nor in the cache any more."""
    root = tmp_path / "root"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text((REPOSITORY / ".dvc/config").read_text())
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    share_cache(root, root, fresh_bucket.bucket)
    (root / "data").mkdir()
    for name in ("one.bin", "two.bin"):
        (root / "data" / name).write_bytes(name.encode() + CONTENT)
    tree = DvcTree(root, child_environment(root, root, s3_connection.environment()), tmp_path / "log.txt")
    tree.require("add", "data")
    tree.require("push")
    shutil.rmtree(root / "data")
    shutil.rmtree(cache_folder(root))
    return tree


def _is_file(request: Request) -> bool:
    return request.method == "GET" and "files/md5" in request.key and not request.key.endswith(".dir")


def test_nothing_damaged_is_ever_pulled_and_the_message_names_it(
    tree: DvcTree, fresh_bucket: ObjectStore, s3_connection: S3Connection
) -> None:
    stages: dict[str, Any] = {TARGET: yaml.safe_load((tree.tree / TARGET).read_text())}
    keys = [info.key for info in fresh_bucket.list("dvc/files/md5/")]
    listing = next(key for key in keys if key.endswith(".dir"))
    file = next(key for key in keys if key != listing)

    # On the way: the bucket is sound, and the next attempt gets it.
    with FaultProxy(s3_connection.endpoint) as proxy:
        proxy.fault = only(_is_file, flip_a_byte, times=1)
        through = {**tree.env, **replace(s3_connection, endpoint=proxy.endpoint).environment()}
        with pytest.raises(InfrastructureError, match="holds every object as it was pushed") as told:
            pull(replace(tree, env=through), fresh_bucket, stages, [TARGET])
    assert told.value.code == ExitCode.INFRASTRUCTURE
    assert not list(tree.tree.glob("data/*"))

    # In the bucket itself.
    for key in (file, listing):
        shutil.rmtree(cache_folder(tree.tree))
        body = fresh_bucket.get(key)
        fresh_bucket.put(key, body[:-1])
        with pytest.raises(StoredObjectDamaged, match="the first is damaged") as named:
            pull(tree, fresh_bucket, stages, [TARGET])
        assert named.value.where == fresh_bucket.address(key)
        assert not list(tree.tree.glob("data/*"))
        fresh_bucket.put(key, body)

    pull(tree, fresh_bucket, stages, [TARGET])
    assert (tree.tree / "data/one.bin").read_bytes() == b"one.bin" + CONTENT
