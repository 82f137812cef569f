"""Finding the decision that counts by reading little, in new records and in old ones."""

from __future__ import annotations

from typing import Any

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.decision import new_decision_id
from twinflow_core.registry.manifest import canonical_json
from twinflow_core.registry.registry import Registry

OURS, OTHER = "a" * 64, "b" * 64


def _document(candidate: str | None, **other: Any) -> dict[str, Any]:
    return {"candidate": candidate, "channel": "staging", "generation": 0, "outcome": "promote", **other}


def _record_as_of_old(registry: Registry, candidate: str | None, number: int, **other: Any) -> str:
    """A record under the names that the first ones had."""
    identity = f"20260101-000000-{number:08x}"
    body = canonical_json({**_document(candidate, **other), "id": identity, "model": registry.model})
    registry.store.put(f"{registry.judgements.prefix}/{identity}.json", body)
    return identity


@pytest.fixture
def reads(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are read, as they are."""
    seen: list[str] = []
    real = registry.store.get

    def get(key: str) -> bytes:
        seen.append(key.split("/")[-1].removesuffix(".json"))
        return real(key)

    monkeypatch.setattr(registry.store, "get", get)
    return seen


def test_what_others_were_decided_is_not_read(registry: Registry, reads: list[str]) -> None:
    for _ in range(20):
        registry.record_decision(_document(OTHER))
        registry.record_decision(_document(None))
    first = registry.record_decision(_document(OURS, run="one"))
    last = registry.record_decision(_document(OURS))
    assert registry.judgements.about(OURS, "staging", 0).id == last
    assert sorted(reads) == sorted([first, last])
    assert registry.judgements.run_that_made(OURS) == "one"
    assert registry.judgements.run_that_made(OTHER) == ""


def test_old_records_count_as_new_ones_do(registry: Registry, reads: list[str]) -> None:
    registry.record_decision(_document(OTHER))
    old = _record_as_of_old(registry, OURS, 1, outcome="reject", run="two")
    _record_as_of_old(registry, OTHER, 2)
    assert registry.judgements.about(OURS, "staging", 0).id == old
    assert len(reads) == 2
    new = registry.record_decision(_document(OURS))
    assert [each.id for each in registry.judgements.of(OURS)] == [old, new]
    assert registry.judgements.about(OURS, "staging", 0).id == new
    assert registry.judgements.run_that_made(OURS) == "two"
    assert len(registry.judgements.all()) == 4


def test_the_record_says_whom_it_is_about_not_its_name(registry: Registry) -> None:
    identity = new_decision_id(OURS)
    body = canonical_json({**_document(OTHER), "id": identity, "model": registry.model})
    registry.store.put(f"{registry.judgements.prefix}/{identity}.json", body)
    with pytest.raises(TwinflowError, match="never judged"):
        registry.judgements.about(OURS, "staging", 0)
