from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.registry import conditional_writes
from twinflow_core.registry.channel import Entry, StaleDecision
from twinflow_core.registry.conditional_writes import probe_conditional_writes
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.registry import ChannelHeld, ChannelState, Registry

RACERS = 32
WHO = {"actor": "somebody", "reason": "because"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return _package(tmp_path / "package", b"weights one")


def _package(folder: Path, weights: bytes) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "model.onnx").write_bytes(weights)
    (folder / "manifest.json").write_bytes(b"{}")
    return folder


def _publish(registry: Registry, tmp_path: Path, weights: str) -> str:
    return registry.publish(_package(tmp_path / weights, weights.encode()), {"run": weights}, {"score": 1.0})


def _decide(registry: Registry, version: str | None, generation: int, **other: object) -> str:
    return registry.record_decision(
        {"candidate": version, "channel": "staging", "generation": generation, "outcome": "promote", **other}
    )


def _promote(registry: Registry, version: str) -> Entry:
    generation = registry.head("staging").generation
    return registry.promote("staging", version, _decide(registry, version, generation), generation, **WHO)


def _blob(registry: Registry, version: str, path: str) -> str:
    sha256 = next(file.sha256 for file in registry.manifest(version).files if file.path == path)
    return f"registry/{registry.model}/blobs/sha256/{sha256[:2]}/{sha256}"


def test_a_published_version_comes_back(registry: Registry, package: Path, tmp_path: Path) -> None:
    version = registry.publish(package, {"run": "r"}, {"score": 0.9})
    assert registry.publish(package, {"run": "r"}, {"score": 0.9}) == version
    assert registry.versions() == [version]
    assert registry.manifest(version).metrics == {"score": 0.9}
    folder = registry.fetch(version, tmp_path / "cache")
    assert (folder / "unet" / "model.onnx").read_bytes() == b"weights one"
    assert registry.fetch(version, tmp_path / "cache") == folder
    assert registry.verify(version) == []


@pytest.mark.parametrize("damage", ["same size", "truncated", "lost"])
def test_a_damaged_blob_is_refused_everywhere_and_healed_by_publishing(
    registry: Registry, package: Path, tmp_path: Path, damage: str
) -> None:
    version = registry.publish(package, {}, {})
    key = _blob(registry, version, "unet/model.onnx")
    body = {"same size": b"weights 0ne", "truncated": b"weights"}.get(damage)
    if body is None:
        registry.store.delete(key)
    else:
        registry.store.put(key, body)
    (problem,) = registry.verify(version)
    assert "unet/model.onnx" in problem
    with pytest.raises(StoredObjectDamaged, match="not intact"):
        _promote(registry, version)
    assert registry.head("staging") == ChannelState(0, None, False)
    with pytest.raises(StoredObjectDamaged):
        registry.fetch(version, tmp_path / "cache")
    assert not (tmp_path / "cache" / version).exists()
    registry.publish(package, {}, {})
    assert registry.verify(version) == []
    assert _promote(registry, version).generation == 1


def test_a_damaged_manifest_is_refused(registry: Registry, package: Path, tmp_path: Path) -> None:
    version = registry.publish(package, {}, {})
    key = f"registry/{registry.model}/versions/{version}/manifest.json"
    registry.store.put(key, registry.store.get(key).replace(b"unet", b"../u"))
    assert "damaged" in registry.verify(version)[0]
    with pytest.raises(StoredObjectDamaged, match="manifest is damaged"):
        registry.fetch(version, tmp_path / "cache")


def test_a_damaged_local_copy_is_replaced(registry: Registry, package: Path, tmp_path: Path) -> None:
    version = registry.publish(package, {}, {})
    folder = registry.fetch(version, tmp_path / "cache")
    (folder / "manifest.json").write_bytes(b"[]")
    (folder / "foreign").write_bytes(b"")
    assert registry.fetch(version, tmp_path / "cache") == folder
    assert (folder / "manifest.json").read_bytes() == b"{}"
    assert not (folder / "foreign").exists()


def test_an_interrupted_download_is_finished(registry: Registry, package: Path, tmp_path: Path) -> None:
    version = registry.publish(package, {}, {})
    partial = tmp_path / "cache" / f".{version}.partial"
    (partial / "unet").mkdir(parents=True)
    (partial / "manifest.json").write_bytes(b"half")
    (partial / "unet" / ".model.onnx.1.partial").write_bytes(b"half")
    folder = registry.fetch(version, tmp_path / "cache")
    assert sorted(path.name for path in folder.rglob("*")) == ["manifest.json", "model.onnx", "unet"]
    assert not partial.exists()


def test_many_fetch_the_same_version_at_once(registry: Registry, package: Path, tmp_path: Path) -> None:
    version = registry.publish(package, {}, {})
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: registry.fetch(version, tmp_path / "cache"), range(8)))
    assert folders == {tmp_path / "cache" / version}


def test_of_many_promotions_at_once_one_wins(registry: Registry, tmp_path: Path) -> None:
    versions = [_publish(registry, tmp_path, f"weights {number}") for number in range(4)]
    decisions = [_decide(registry, versions[racer % 4], 0) for racer in range(RACERS)]
    probe_conditional_writes(registry.store)

    def race(racer: int) -> Entry | None:
        try:
            return registry.promote(
                "staging", versions[racer % 4], decisions[racer], 0, f"racer {racer}", "because"
            )
        except StaleDecision:
            return None

    with ThreadPoolExecutor(RACERS) as pool:
        winners = [entry for entry in pool.map(race, range(RACERS)) if entry]
    assert registry.history("staging") == winners
    assert len(winners) == 1


def test_a_promotion_repeated_after_the_commit_gives_the_same_entry(
    registry: Registry, package: Path
) -> None:
    version = registry.publish(package, {}, {})
    decision = _decide(registry, version, 0)
    entry = registry.promote("staging", version, decision, 0, **WHO)
    assert registry.promote("staging", version, decision, 0, **WHO) == entry
    assert registry.head("staging") == ChannelState(1, version, False)


def test_a_decision_holds_for_one_generation(registry: Registry, tmp_path: Path) -> None:
    first, second = (_publish(registry, tmp_path, weights) for weights in ("first", "second"))
    early = _decide(registry, second, 0)
    _promote(registry, first)
    with pytest.raises(StaleDecision, match="now at generation 1"):
        registry.promote("staging", second, early, 0, **WHO)
    with pytest.raises(StaleDecision, match="against generation 0"):
        registry.promote("staging", second, early, 1, **WHO)
    assert registry.head("staging") == ChannelState(1, first, False)


def test_an_expired_decision_moves_nothing(registry: Registry, package: Path) -> None:
    version = registry.publish(package, {}, {})
    decision = _decide(registry, version, 0, expires="2026-01-01T00:00:00Z")
    with pytest.raises(StaleDecision, match="expired at 2026-01-01"):
        registry.promote("staging", version, decision, 0, **WHO)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"outcome": "reject"}, "outcome"),
        ({"outcome": "needs-approval"}, "outcome"),
        ({"channel": "production"}, "channel"),
        ({"candidate": "0" * 64}, "candidate"),
        ({"candidate": None}, "candidate"),
        ({"mode": "dry-run"}, "mode"),
    ],
)
def test_a_decision_that_says_otherwise_moves_nothing(
    registry: Registry, package: Path, change: dict[str, object], name: str
) -> None:
    version = registry.publish(package, {}, {})
    document = {"candidate": version, "channel": "staging", "generation": 0, "outcome": "promote", **change}
    identity = registry.record_decision(document)
    assert registry.decision(identity).items() >= document.items()
    with pytest.raises(TwinflowError, match=f"its {name} is"):
        registry.promote("staging", version, identity, 0, **WHO)
    assert registry.history("staging") == []


def test_a_decision_must_be_whole(registry: Registry) -> None:
    with pytest.raises(TwinflowError, match="`outcome` is wrong"):
        registry.record_decision({"candidate": None, "channel": "staging", "generation": 0})
    with pytest.raises(TwinflowError, match="cannot hold this value"):
        _decide(registry, None, 0, score=float("nan"))
    with pytest.raises(TwinflowError, match="no decision"):
        registry.decision("20260101-000000-00000000")
    with pytest.raises(TwinflowError, match="no name of a decision"):
        registry.decision("../../secrets")
    with pytest.raises(TwinflowError, match="about 'another'"):
        _decide(registry, None, 0, model="another")
    assert registry.decisions() == []


def test_hold_stops_promotion_and_never_rollback(registry: Registry, tmp_path: Path) -> None:
    first, second, third = (_publish(registry, tmp_path, weights) for weights in ("a", "b", "c"))
    _promote(registry, first)
    _promote(registry, second)
    registry.hold("staging", **WHO)
    with pytest.raises(ChannelHeld, match="held"):
        _promote(registry, third)
    with pytest.raises(TwinflowError, match="held already"):
        registry.hold("staging", **WHO)
    assert registry.rollback("staging", **WHO).version == first
    assert registry.head("staging") == ChannelState(4, first, True)
    registry.release("staging", **WHO)
    with pytest.raises(TwinflowError, match="not held"):
        registry.release("staging", **WHO)
    assert _promote(registry, third).previous == first
    assert [entry.action for entry in registry.history("staging")] == [
        "promote",
        "promote",
        "hold",
        "rollback",
        "release",
        "promote",
    ]


def test_a_rollback_to_a_damaged_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    first, second = (_publish(registry, tmp_path, weights) for weights in ("a", "b"))
    _promote(registry, first)
    _promote(registry, second)
    registry.store.put(_blob(registry, first, "unet/model.onnx"), b"!")
    with pytest.raises(StoredObjectDamaged):
        registry.rollback("staging", **WHO)
    assert registry.head("staging").version == second


def test_a_store_without_conditional_writes_promotes_nothing(
    registry: Registry, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.publish(package, {}, {})
    place = (registry.store.endpoint, registry.store.bucket)
    refused = conditional_writes.ConditionalWrites(False, "an existing object was overwritten")
    monkeypatch.setattr(conditional_writes, "_known", {place: refused})
    with pytest.raises(TwinflowError, match="cannot hold a registry"):
        _promote(registry, version)
    assert registry.head("staging").generation == 0


@pytest.mark.parametrize("name", ["", "Staging", "a/b", "..", "-a", "a" * 64])
def test_names_that_are_no_names(registry: Registry, name: str) -> None:
    with pytest.raises(TwinflowError, match="is no name of a channel"):
        registry.head(name)
    with pytest.raises(TwinflowError, match="is no name of a model"):
        Registry(registry.store, name)
    with pytest.raises(TwinflowError, match="is no version"):
        registry.manifest(name[:63])


def test_a_version_that_was_never_published(registry: Registry) -> None:
    with pytest.raises(TwinflowError, match="never published"):
        registry.fetch("0" * 64, Path("unused"))
    assert "never published" in registry.verify("0" * 64)[0]


def test_the_registry_imports_no_heavy_library() -> None:
    code = (
        "import sys, twinflow_core.registry.registry\n"
        "print([name for name in ('torch', 'prefect', 'dvc', 'diffusers') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
