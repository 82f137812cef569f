"""Per-image results summed by prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gates.measured import sample_table
from twinflow_core.errors import TwinflowError
from twinflow_core.gates.samples import as_candidate, prompt_scores, prompts_hash, read_scores

KEY = ("candidate", "nfe1")


def changed(table: pa.Table, row: int, **values: object) -> pa.Table:
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows)


def test_sums_by_prompt_and_ignores_other_columns(tmp_path: Path) -> None:
    table = sample_table({KEY: 0.7}, prompts_per_task=3)
    pq.write_table(table.append_column("image", [[b"png"] * table.num_rows]), tmp_path / "samples.parquet")
    scores = read_scores(tmp_path / "samples.parquet")[KEY]
    assert scores.images.tolist() == [4.0] * 18
    assert scores.correct.sum() == sum(table.column("correct").to_pylist())
    assert list(scores.prompt_ids) == sorted(scores.prompt_ids)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(random: object) -> None:
    rows = sample_table({KEY: 0.5, ("reference", "many"): 0.9}, prompts_per_task=2).to_pylist()
    before = prompt_scores(pa.Table.from_pylist(rows))
    random.shuffle(rows)  # type: ignore[attr-defined]
    after = prompt_scores(pa.Table.from_pylist(rows))
    assert prompts_hash(before) == prompts_hash(after)
    for key in before:
        assert before[key].design == after[key].design
        assert np.array_equal(before[key].correct, after[key].correct)


def test_a_missing_verdict_is_not_a_number() -> None:
    scores = prompt_scores(changed(sample_table({KEY: 1.0}), 0, correct=None))[KEY]
    assert np.isnan(scores.correct).sum() == 1
    assert scores.scored


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample": 1}, "twice"),
        ({"task": "position"}, "two tasks"),
        ({"prompt": "another"}, "two texts"),
    ],
)
def test_contradictions_are_errors(values: dict[str, object], message: str) -> None:
    with pytest.raises(TwinflowError, match=message):
        prompt_scores(changed(sample_table({KEY: 0.5}, prompts_per_task=1), 0, **values))


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "samples.parquet").write_bytes(b"not parquet")
    for name in ("samples.parquet", "missing.parquet"):
        with pytest.raises(TwinflowError, match="cannot be read"):
            read_scores(tmp_path / name)


def test_a_champion_is_read_as_a_candidate() -> None:
    served = prompt_scores(sample_table({("served", "nfe1"): 0.5}))
    assert set(as_candidate(served)) == {KEY}
    with pytest.raises(TwinflowError, match="one model"):
        as_candidate(prompt_scores(sample_table({KEY: 0.5, ("reference", "many"): 0.5})))


def test_prompts_hash_follows_texts() -> None:
    table = sample_table({KEY: 0.5}, prompts_per_task=1, images_per_prompt=1)
    other = changed(table, 0, prompt="a photo of something else")
    assert prompts_hash(prompt_scores(table)) != prompts_hash(prompt_scores(other))
    assert prompts_hash(prompt_scores(table)) != prompts_hash(prompt_scores(table), prompt_scores(other))
