from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from twinflow_core.registry.audit import audit_registry, audit_version
from twinflow_core.registry.registry import Registry

WHO = {"actor": "ada", "reason": "because"}


@pytest.fixture
def used(registry: Registry, tmp_path: Path) -> Registry:
    """Two versions that share a file, both promoted to staging, the second approved and held back."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name)
        (tmp_path / name / "text.onnx").write_text("shared")
        version = registry.publish(tmp_path / name, {}, {})
        generation = registry.head("staging").generation
        told = {"candidate": version, "channel": "staging", "generation": generation}
        decision = registry.record_decision({**told, "outcome": "needs-approval"})
        registry.approve("staging", version, **WHO)
        registry.promote("staging", version, decision, generation, **WHO)
    registry.hold("staging", **WHO)
    return registry


def test_a_sound_registry(used: Registry) -> None:
    audit = audit_registry(used)
    assert audit.problems == []
    counted = (audit.versions, audit.files, audit.bytes, audit.channels, audit.entries)
    assert counted == (2, 3, 8, 1, 3)
    assert (audit.decisions, audit.answers) == (2, 2)
    one = audit_version(used, used.versions()[0])
    assert (one.versions, one.files, one.problems) == (1, 2, [])


def _key(registry: Registry, folder: str, index: int) -> str:
    return [info.key for info in registry.store.list(f"{registry.prefix}/{folder}")][index]


def _change(registry: Registry, key: str, old: bytes, new: bytes) -> None:
    body = registry.store.get(key)
    assert old in body
    registry.store.put(key, body.replace(old, new))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda r: r.store.put(_key(r, "blobs/", 0), b"?"), "damaged"),
        (lambda r: r.store.delete(_key(r, "blobs/", 1)), "lost"),
        (lambda r: r.store.delete(_key(r, "versions/", 0)), "never published"),
        (lambda r: r.store.delete(_key(r, "channels/staging/log/", 1)), "gap"),
        (lambda r: r.store.delete(_key(r, "decisions/", 0)), "no decision"),
        (lambda r: r.store.put(_key(r, "decisions/", 1), b"?"), "decision is damaged"),
        (lambda r: r.store.delete(_key(r, "approvals/", 0)), "no approval 1"),
        (
            lambda r: _change(r, _key(r, "decisions/", 0), b'"needs-approval"', b'"reject"'),
            "does not allow it",
        ),
        (
            lambda r: _change(r, _key(r, "channels/staging/log/", 1), b'"previous":"', b'"previous":"0000'),
            "damaged",
        ),
        (
            lambda r: (
                _change(r, _key(r, "channels/staging/log/", 2), b'"action":"hold"', b'"action":"promote"')
                or r.store.put(
                    _key(r, "channels/staging/log/", 1),
                    r.store.get(_key(r, "channels/staging/log/", 1)).replace(b'"held":false', b'"held":true'),
                )
            ),
            "promotes while the channel is held",
        ),
    ],
)
def test_every_harm_is_said(used: Registry, harm: Callable[[Registry], object], said: str) -> None:
    harm(used)
    assert said in " ".join(audit_registry(used).problems)
