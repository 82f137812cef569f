"""Staging to production with the same bytes, and what people's answers do to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.registry import answers
from twinflow_core.registry.answers import Answer
from twinflow_core.registry.channel import Entry, StaleDecision
from twinflow_core.registry.conditional_writes import probe_conditional_writes
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.permission import ApprovalMissing, RejectedByPerson
from twinflow_core.registry.registry import Registry

WHO = {"actor": "ada", "reason": "looks right"}
ANSWERING = 4


@pytest.fixture
def guarded(registry: Registry) -> Registry:
    """The same registry under a policy that asks for approval on production."""
    return Registry(registry.store, registry.model, ["production"])


def _publish(registry: Registry, folder: Path, weights: str) -> str:
    (folder / weights).mkdir()
    (folder / weights / "model.onnx").write_text(weights)
    return registry.publish(folder / weights, {}, {})


def _decide(registry: Registry, version: str, **other: object) -> str:
    generation = registry.head("staging").generation
    told = {"candidate": version, "channel": "staging", "generation": generation, "outcome": "promote"}
    return registry.record_decision({**told, **other})


def _to_staging(registry: Registry, version: str) -> str:
    """Promote to staging as a run does; gives the decision."""
    decision = _decide(registry, version)
    registry.promote("staging", version, decision, registry.head("staging").generation, **WHO)
    return decision


def _to_production(registry: Registry, version: str, decision: str) -> Entry:
    return registry.promote("production", version, decision, registry.head("production").generation, **WHO)


def test_what_staging_serves_goes_to_production_as_it_is(registry: Registry, tmp_path: Path) -> None:
    first, second = (_publish(registry, tmp_path, weights) for weights in ("a", "b"))
    before = list(registry.store.list(f"{registry.prefix}/blobs/"))
    decision = _to_staging(registry, first)
    entry = _to_production(registry, first, decision)
    assert (entry.version, entry.decision, entry.approval) == (first, decision, None)
    assert list(registry.store.list(f"{registry.prefix}/blobs/")) == before
    judged = _decide(registry, second)
    with pytest.raises(TwinflowError, match="staging does not serve this version"):
        _to_production(registry, second, judged)
    later = _to_staging(registry, second)
    with pytest.raises(StaleDecision, match="no longer at 0"):
        registry.promote("production", second, later, 0, **WHO)
    assert registry.head("production").version == first


def test_a_dry_run_after_the_decision_changes_nothing(guarded: Registry, tmp_path: Path) -> None:
    version = _publish(guarded, tmp_path, "a")
    decision = _to_staging(guarded, version)
    _decide(guarded, version, mode="dry-run")
    assert guarded.judgement_about(version, "production").id == decision
    assert guarded.judgement_about(version, "staging").id == decision


def test_a_damaged_blob_stops_at_production_too(registry: Registry, tmp_path: Path) -> None:
    version = _publish(registry, tmp_path, "a")
    decision = _to_staging(registry, version)
    (blob,) = (info.key for info in registry.store.list(f"{registry.prefix}/blobs/"))
    registry.store.put(blob, b"b")
    with pytest.raises(StoredObjectDamaged):
        _to_production(registry, version, decision)
    assert registry.history("production") == []


def test_production_asks_for_an_approval_and_records_it(guarded: Registry, tmp_path: Path) -> None:
    version = _publish(guarded, tmp_path, "a")
    decision = _to_staging(guarded, version)
    with pytest.raises(ApprovalMissing, match="nobody has approved") as refused:
        _to_production(guarded, version, decision)
    assert f"twinflow approve {version[:12]} --channel production" in refused.value.fix
    answer = guarded.approve("production", version, "grace", "the grid is fine")
    assert (answer.number, answer.actor, answer.decision) == (1, "grace", decision)
    entry = _to_production(guarded, version, decision)
    assert (entry.actor, entry.approval) == ("ada", 1)
    assert guarded.answers.about(version, "production") == [answer]


def test_the_last_answer_counts(registry: Registry, tmp_path: Path) -> None:
    version = _publish(registry, tmp_path, "a")
    decision = _to_staging(registry, version)
    registry.approve("production", version, "grace", "fine")
    registry.reject("production", version, "linus", "the reds are off")
    with pytest.raises(RejectedByPerson, match=r"linus rejected .* the reds are off"):
        _to_production(registry, version, decision)
    registry.approve("production", version, "linus", "they are not")
    assert _to_production(registry, version, decision).version == version


def test_what_the_gates_leave_to_a_person(registry: Registry, tmp_path: Path) -> None:
    version = _publish(registry, tmp_path, "a")
    decision = _decide(registry, version, outcome="needs-approval")
    with pytest.raises(ApprovalMissing, match="'needs-approval', and nobody"):
        registry.promote("staging", version, decision, 0, **WHO)
    registry.approve("staging", version, **WHO)
    assert registry.promote("staging", version, decision, 0, **WHO).approval == 1


@pytest.mark.parametrize("change", [{"outcome": "reject"}, {"mode": "dry-run"}])
def test_what_the_gates_did_not_let_pass_cannot_be_approved(
    registry: Registry, tmp_path: Path, change: dict[str, object]
) -> None:
    version = _publish(registry, tmp_path, "a")
    with pytest.raises(TwinflowError, match="never judged"):
        registry.approve("staging", version, **WHO)
    _decide(registry, version, **change)
    with pytest.raises(TwinflowError, match="does not allow"):
        registry.approve("staging", version, **WHO)
    assert registry.answers.all() == []


def test_an_approval_is_of_one_decision_one_champion_and_72_hours(
    guarded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (_publish(guarded, tmp_path, weights) for weights in ("a", "b"))
    decision = _to_staging(guarded, first)
    with monkeypatch.context() as short:
        short.setattr(answers, "VALID_FOR", timedelta(0))
        guarded.approve("production", first, **WHO)
    with pytest.raises(ApprovalMissing, match="expired"):
        _to_production(guarded, first, decision)
    guarded.approve("production", first, **WHO)
    key = f"{guarded.prefix}/decisions/{decision}.json"
    recorded = guarded.store.get(key)
    guarded.store.put(key, recorded.replace(b'"generation":0', b'"generation":0,"score":1'))
    with pytest.raises(ApprovalMissing, match="another decision"):
        _to_production(guarded, first, decision)
    guarded.store.put(key, recorded)
    # Approved together, promoted one after the other: the second was approved against another champion.
    _to_production(guarded, first, decision)
    later = _to_staging(guarded, second)
    guarded.approve("production", second, **WHO)
    guarded.hold("production", **WHO)
    guarded.release("production", **WHO)
    assert _to_production(guarded, second, later).generation == 4
    guarded.rollback("production", **WHO)
    with pytest.raises(ApprovalMissing, match="another version served"):
        _to_production(guarded, second, later)


def test_a_decision_outlives_a_hold(registry: Registry, tmp_path: Path) -> None:
    version = _publish(registry, tmp_path, "a")
    decision = _decide(registry, version)
    registry.hold("staging", **WHO)
    registry.release("staging", **WHO)
    assert registry.promote("staging", version, decision, 0, **WHO).generation == 3


def test_answers_at_once_are_numbered_without_a_gap(registry: Registry, tmp_path: Path) -> None:
    version = _publish(registry, tmp_path, "a")
    probe_conditional_writes(registry.store)

    def answer(person: int) -> Answer | None:
        try:
            return registry.reject("production", version, f"person {person}", "no")
        except StaleDecision:
            return None

    with ThreadPoolExecutor(ANSWERING) as pool:
        told = [each for each in pool.map(answer, range(ANSWERING)) if each]
    assert sorted(each.number for each in told) == list(range(1, len(told) + 1))
    assert len(registry.answers.about(version, "production")) == len(told)
    registry.store.delete(f"{registry.answers.prefix}/{version}/production/000001.json")
    registry.store.put(f"{registry.answers.prefix}/{version}/production/000009.json", b"{}")
    with pytest.raises(StoredObjectDamaged, match="damaged"):
        registry.answers.latest(version, "production")


def test_an_answer_says_who_and_why(registry: Registry, tmp_path: Path) -> None:
    version = _publish(registry, tmp_path, "a")
    with pytest.raises(TwinflowError, match="reason is empty"):
        registry.reject("production", version, "ada", " ")
    with pytest.raises(TwinflowError, match="never published"):
        registry.reject("production", "0" * 64, "ada", "no")


def test_a_no_exits_otherwise_than_a_slip(guarded: Registry, tmp_path: Path) -> None:
    version = _publish(guarded, tmp_path, "a")
    refused = {
        _decide(guarded, version, outcome="reject"): ExitCode.REJECTED,
        _decide(guarded, version, outcome="needs-approval"): ExitCode.REJECTED,
        _decide(guarded, version, mode="dry-run"): ExitCode.WRONG_INPUT,
    }
    for decision, code in refused.items():
        with pytest.raises(TwinflowError) as told:
            guarded.promote("staging", version, decision, 0, **WHO)
        assert told.value.code == code
    guarded.reject("staging", version, **WHO)
    with pytest.raises(RejectedByPerson) as no:
        guarded.promote("staging", version, _decide(guarded, version), 0, **WHO)
    assert no.value.code == ExitCode.REJECTED
