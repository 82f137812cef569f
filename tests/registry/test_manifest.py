from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.manifest import PackageFile, canonical_json, describe_package, read_manifest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "model.onnx").write_bytes(b"weights")
    (folder / "a.json").write_bytes(b"{}")
    return folder


@given(JSON)
def test_canonical_json_keeps_the_value_and_forgets_the_order(document: object) -> None:
    body = canonical_json(document)
    assert json.loads(body) == document
    if isinstance(document, dict):
        assert canonical_json(dict(reversed(document.items()))) == body


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_value_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TwinflowError, match="cannot hold this value"):
        canonical_json({"metrics": {"score": value}})


def test_equal_content_is_an_equal_version(package: Path) -> None:
    version, body, manifest = describe_package(package, "shapes", {"run": "1"}, {"score": 0.5})
    assert [file.path for file in manifest.files] == ["a.json", "sub/model.onnx"]
    assert describe_package(package, "shapes", {"run": "1"}, {"score": 0.5})[0] == version
    assert describe_package(package, "shapes", {"run": "2"}, {"score": 0.5})[0] != version
    (package / "a.json").write_bytes(b"[]")
    assert describe_package(package, "shapes", {"run": "1"}, {"score": 0.5})[0] != version
    assert read_manifest(version, body, "here") == manifest


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a\\b", "C:x", "a\nb"])
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        PackageFile(path=path, sha256="0" * 64, size=0)


@given(st.binary(max_size=200))
def test_bytes_that_are_not_the_manifest_are_damage(body: bytes) -> None:
    with pytest.raises(StoredObjectDamaged, match="damaged"):
        read_manifest("0" * 64, body, "here")


def test_what_cannot_be_published_says_why(tmp_path: Path, package: Path) -> None:
    with pytest.raises(TwinflowError, match="no package"):
        describe_package(tmp_path / "missing", "shapes", {}, {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(TwinflowError, match="cannot be published"):
        describe_package(tmp_path / "empty", "shapes", {}, {})
    (package / "link").symlink_to("/etc/passwd")
    with pytest.raises(TwinflowError, match="no links"):
        describe_package(package, "shapes", {}, {})
