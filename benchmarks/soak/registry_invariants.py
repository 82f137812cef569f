"""What must hold of a registry after anything that was done to it, and small packages to promote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twinflow_core.registry.channel import Entry
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

CHANNEL = "staging"


def registry_at(connection: S3Connection, bucket: str, model: str, endpoint: str = "") -> Registry:
    """A registry behind a client of its own, at another address if one is given."""
    reached = replace(connection, endpoint=endpoint) if endpoint else connection
    return Registry(ObjectStore(make_s3_client(reached), bucket), model)


def small_package(folder: Path, content: bytes) -> Path:
    """A package of two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "manifest.json").write_bytes(b"{}")
    return folder


def decide(registry: Registry, version: str, generation: int) -> str:
    """A decision that lets a version pass against a generation."""
    return registry.record_decision(
        {"candidate": version, "channel": CHANNEL, "generation": generation, "outcome": "promote"}
    )


def require_sound(registry: Registry, channel: str = CHANNEL) -> list[Entry]:
    """The history, which has no gap and no double, and whose every version can be read back whole.

    Raises:
        AssertionError: it has, or cannot.
    """
    entries = registry.history(channel)
    assert [entry.generation for entry in entries] == list(range(1, len(entries) + 1)), "a gap or a double"
    nonces = {entry.nonce for entry in entries}
    assert len(nonces) == len(entries), "one write made two entries"
    before = None
    for entry in entries:
        assert entry.previous == before, f"generation {entry.generation} does not follow the one before"
        before = entry.version
    decisions = [entry.decision for entry in entries if entry.action == "promote"]
    assert len(set(decisions)) == len(decisions), "one decision was carried out twice"
    head = registry.head(channel)
    assert head.generation == len(entries), "the head is not the last entry"
    for version in {entry.version for entry in entries if entry.version}:
        problems = registry.verify(version)
        assert not problems, f"a served version is not whole: {problems}"
    return entries
