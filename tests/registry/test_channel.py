from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import Channel, Entry, StaleDecision, version_to_return_to
from twinflow_core.registry.conditional_writes import probe_conditional_writes
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.store import ObjectStore

A, B, C = (letter * 64 for letter in "abc")
WRITERS = 8


@pytest.fixture
def channel(object_store: ObjectStore, fresh_prefix: str) -> Channel:
    return Channel(object_store, fresh_prefix + "channels/staging")


def _append(channel: Channel, head: Entry | None, version: str = A, actor: str = "somebody") -> Entry:
    return channel.append(
        head, "promote", version=version, held=False, decision="decision", actor=actor, reason="because"
    )


def test_entries_are_numbered_without_a_gap(channel: Channel) -> None:
    assert channel.head() is None
    assert channel.history() == []
    first = _append(channel, None)
    second = _append(channel, first, B)
    assert channel.history() == [first, second]
    assert (second.generation, second.previous, second.version) == (2, A, B)
    assert channel.head() == second


def test_of_many_writers_one_wins(channel: Channel) -> None:
    probe_conditional_writes(channel.store)
    first = _append(channel, None)

    def attempt(writer: int) -> Entry | None:
        try:
            return _append(channel, first, actor=f"writer {writer}")
        except StaleDecision:
            return None

    with ThreadPoolExecutor(WRITERS) as pool:
        winners = [entry for entry in pool.map(attempt, range(WRITERS)) if entry]
    assert channel.history() == [first, *winners]
    assert len(winners) == 1


@pytest.mark.parametrize("pointer", [None, b"not json", b'{"generation":1,"version":null}'])
def test_the_head_is_found_without_the_pointer_or_by_a_stale_one(
    channel: Channel, pointer: bytes | None
) -> None:
    head = None
    for _ in range(3):
        head = _append(channel, head)
    key = f"{channel.prefix}/champion.json"
    if pointer is None:
        channel.store.delete(key)
    else:
        channel.store.put(key, pointer)
    assert channel.head() == head


def test_a_pointer_beyond_the_log_is_not_believed(channel: Channel) -> None:
    head = _append(channel, None)
    channel.store.put(f"{channel.prefix}/champion.json", b'{"generation":9,"version":null}')
    assert channel.head() == head


def test_a_damaged_lost_or_foreign_entry_is_said(channel: Channel) -> None:
    first = _append(channel, None)
    second = _append(channel, first)
    _append(channel, second)
    log = [info.key for info in channel.store.list(f"{channel.prefix}/log/")]
    kept = channel.store.get(log[1])
    channel.store.delete(log[1])
    with pytest.raises(StoredObjectDamaged, match="gap"):
        channel.history()
    channel.store.put(log[1], kept[:-20])
    with pytest.raises(StoredObjectDamaged, match="damaged"):
        channel.history()
    channel.store.put(log[1], channel.store.get(log[2]))
    with pytest.raises(StoredObjectDamaged, match="damaged"):
        channel.history()
    channel.store.put(log[1], kept)
    channel.store.put(f"{channel.prefix}/log/3.json", b"{}")
    with pytest.raises(StoredObjectDamaged, match="foreign"):
        channel.history()


@pytest.mark.parametrize(("actor", "reason"), [("", "because"), ("somebody", " ")])
def test_an_entry_says_who_and_why(channel: Channel, actor: str, reason: str) -> None:
    with pytest.raises(TwinflowError, match="is empty"):
        channel.append(None, "promote", version=A, held=False, decision=None, actor=actor, reason=reason)
    assert channel.head() is None


def _past(*steps: str) -> list[Entry]:
    """Entries from steps like "promote a", "rollback b", "hold"."""
    entries: list[Entry] = []
    for step in steps:
        action, _, letter = step.partition(" ")
        version = letter * 64 if letter else (entries[-1].version if entries else None)
        entries.append(
            Entry.model_validate(
                {
                    "generation": len(entries) + 1,
                    "action": action,
                    "version": version,
                    "previous": entries[-1].version if entries else None,
                    "held": action == "hold",
                    "decision": None,
                    "actor": "somebody",
                    "reason": "because",
                    "at": "2026-01-01T00:00:00Z",
                    "nonce": str(len(entries)),
                }
            )
        )
    return entries


@pytest.mark.parametrize(
    ("past", "to", "expected"),
    [
        (("promote a", "promote b"), None, A),
        (("promote a", "promote b", "hold"), None, A),
        (("promote a", "promote b", "promote c", "rollback b"), None, A),
        (("promote a", "promote b", "rollback a", "promote c"), None, A),
        (("promote a", "promote b", "promote a", "promote c"), None, A),
        (("promote a", "promote b", "rollback a"), B, B),
        (("promote a", "promote b", "promote c"), A, A),
    ],
)
def test_what_a_rollback_goes_back_to(past: tuple[str, ...], to: str | None, expected: str) -> None:
    assert version_to_return_to("staging", _past(*past), to) == expected


@pytest.mark.parametrize(
    ("past", "to"),
    [
        ((), None),
        (("hold",), None),
        (("promote a",), None),
        (("promote a", "promote b", "rollback a"), None),
        (("promote a",), A),
        (("promote a",), B),
    ],
)
def test_where_there_is_nothing_to_go_back_to(past: tuple[str, ...], to: str | None) -> None:
    with pytest.raises(TwinflowError, match="go back to"):
        version_to_return_to("staging", _past(*past), to)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_rolling_back_again_and_again_ends_and_never_repeats_itself(letters: list[str]) -> None:
    steps = [f"promote {letter}" for letter in letters]
    for _ in range(len(letters)):
        entries = _past(*steps)
        try:
            target = version_to_return_to("staging", entries, None)
        except TwinflowError:
            return
        assert target != entries[-1].version
        steps.append(f"rollback {target[0]}")
    pytest.fail("rolled back more often than it was promoted")
