"""Hashes of a run's inputs: equal for equal content, different for any change that has an effect."""

from __future__ import annotations

import hashlib
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.inputs import HashCache, run_inputs, what_changed
from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params, load_params
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tests/tiny_shapes").mkdir(parents=True)
    (tmp_path / "tests/tiny_shapes/shapes.yaml").write_text("count: 9\n")
    (tmp_path / "tiny_base").mkdir()
    (tmp_path / "tiny_base/model_index.json").write_text("{}")
    (tmp_path / "twinflow_core").mkdir()
    (tmp_path / "twinflow_core/code.py").write_text("x = 1\n")
    return tmp_path


@pytest.fixture
def params() -> Params:
    return load_params(REPOSITORY / "tests/params.tiny.yaml")


def test_the_same_content_gives_the_same_hashes_elsewhere(root: Path, params: Params) -> None:
    before = run_inputs(root, params)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    (root / "twinflow_core/__pycache__").mkdir()
    (root / "twinflow_core/__pycache__/code.pyc").write_bytes(b"0")
    assert run_inputs(root, params) == before


@pytest.mark.parametrize(
    ("path", "part"),
    [("tests/tiny_shapes/new.png", "data"), ("tiny_base/x.json", "base"), ("twinflow_core/new.py", "code")],
)
def test_a_new_file_changes_its_part_alone(root: Path, params: Params, path: str, part: str) -> None:
    before = run_inputs(root, params)
    (root / path).write_text("new")
    assert what_changed(before, run_inputs(root, params)) == [part]


def test_a_changed_gate_changes_its_section_alone_and_a_timeout_nothing(root: Path, params: Params) -> None:
    before = run_inputs(root, params)
    gates = params.gates.model_copy(update={"resamples": 999})
    run = params.run.model_copy(update={"stage_timeout_minutes": 1})
    assert what_changed(before, run_inputs(root, params.model_copy(update={"gates": gates}))) == [
        "params.gates"
    ]
    assert what_changed(before, run_inputs(root, params.model_copy(update={"run": run}))) == []


def test_a_missing_source_and_a_missing_base_are_told(root: Path, params: Params) -> None:
    (root / "tiny_base/model_index.json").unlink()
    with pytest.raises(TwinflowError, match="base model"):
        run_inputs(root, params)
    (root / "tests/tiny_shapes/shapes.yaml").unlink()
    (root / "tests/tiny_shapes").rmdir()
    with pytest.raises(TwinflowError, match="images does not exist"):
        run_inputs(root, params)


def test_a_base_of_the_hub_is_known_by_its_commit(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def at(revision: str) -> dict[str, str]:
        base = params.base.model_copy(update={"hub": "owner/name", "revision": revision})
        return run_inputs(root, params.model_copy(update={"base": base}))

    assert what_changed(at("a" * 40), at("b" * 40)) == ["params.base"]
    with pytest.raises(TwinflowError, match="no full commit hash"):
        at("main")


def test_an_object_more_in_the_bucket_changes_the_data_alone(
    root: Path,
    params: Params,
    object_store: ObjectStore,
    s3_connection: S3Connection,
    fresh_prefix: str,
) -> None:
    source = f"s3://{object_store.bucket}/{fresh_prefix}set"
    there = params.model_copy(update={"data": params.data.model_copy(update={"source": source})})
    seen = []
    for body in (b"one", b"two"):
        object_store.put(f"{fresh_prefix}set/a.tar", body)
        seen += [run_inputs(root, there, s3_connection), run_inputs(root, there, s3_connection)]
    assert [what_changed(*pair) for pair in pairwise(seen)] == [[], ["data"], []]


def test_the_hash_of_a_bucket_is_that_of_one_json_document_in_memory(
    root: Path,
    params: Params,
    object_store: ObjectStore,
    s3_connection: S3Connection,
    fresh_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = make_s3_client(s3_connection)
    client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    monkeypatch.setattr("twinflow_core.data.s3_source.make_s3_client", lambda _: client)
    for name in [
        "b.png",
        "B.png",
        "a b+c%.txt",
        "ä.png",
        "😀.png",
        "\uffff.png",
        'a/"q"\\.txt',
        "a-1.png",
        "a/0.tar",
    ]:
        object_store.put(f"{fresh_prefix}set/{name}", name.encode())
    object_store.put(f"{fresh_prefix}set/folder/", b"")

    def hashes(folder: str) -> tuple[str, str]:
        """What a run is given, and what it was given when the listing was one dictionary."""
        source = f"s3://{object_store.bucket}/{fresh_prefix}{folder}"
        there = params.model_copy(update={"data": params.data.model_copy(update={"source": source})})
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(
            Bucket=object_store.bucket, Prefix=f"{fresh_prefix}{folder}/"
        ):
            for item in page.get("Contents", []):
                name = item["Key"][len(f"{fresh_prefix}{folder}/") :]
                if name and not name.endswith("/"):
                    found[name] = f"{item.get('ETag', '')} {item['Size']}"
        document = json.dumps(found, sort_keys=True).encode()
        return run_inputs(root, there, s3_connection)["data"], hashlib.sha256(document).hexdigest()

    assert len({*hashes("set")}) == len({*hashes("none")}) == 1
    assert hashes("set") != hashes("none")


def test_a_file_is_read_again_only_if_it_changed(tmp_path: Path) -> None:
    file, cache = tmp_path / "a.bin", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"one")
    old = time.time() - 60
    os.utime(file, (old, old))
    with HashCache(cache) as hashes:
        first = hashes.sha256(file)
    # Same size, same time: taken from the cache, which is the point of it.
    file.write_bytes(b"two")
    os.utime(file, (old, old))
    with HashCache(cache) as hashes:
        assert hashes.sha256(file) == first
    os.utime(file, (old + 1, old + 1))
    with HashCache(cache) as hashes:
        assert hashes.sha256(file) != first


def test_a_file_just_written_is_not_trusted_to_its_clock(tmp_path: Path) -> None:
    file, cache = tmp_path / "a.bin", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    state = file.stat()
    with HashCache(cache) as hashes:
        first = hashes.sha256(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    with HashCache(cache) as hashes:
        assert hashes.sha256(file) != first
