"""Buckets take turns by their rows; each gives every row once before it gives one again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.errors import TwinflowError
from twinflow_core.training.bucket_schedule import BucketSchedule, require_full_batches
from twinflow_core.training.draws import batch_rows
from twinflow_core.training.encoded import Bucket, EncodedData
from twinflow_core.training.roles import role_of_row

ROWS = st.lists(st.integers(1, 10_000), min_size=1, max_size=6)


def buckets_of(rows: list[int]) -> tuple[Bucket, ...]:
    starts = [sum(rows[:index]) for index in range(len(rows))]
    return tuple(
        Bucket(f"{index}", range(start, start + count), (4, 8, 8))
        for index, (start, count) in enumerate(zip(starts, rows, strict=True))
    )


@given(ROWS, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_after_any_number_of_steps_each_had_its_share_of_turns(rows: list[int], seed: int) -> None:
    buckets = buckets_of(rows)
    schedule = BucketSchedule(buckets, seed, 400)
    taken = [0] * len(rows)
    for step in range(400):
        turn = schedule.turn(step)
        index = buckets.index(turn.bucket)
        assert turn.number == taken[index]
        taken[index] += 1
        for count, own in zip(taken, rows, strict=True):
            assert abs(count - (step + 1) * own / sum(rows)) < 3


def test_a_turn_depends_on_seed_and_step_and_not_on_how_many_steps_follow() -> None:
    buckets = buckets_of([30, 20, 10])
    short, long = BucketSchedule(buckets, 5, 20), BucketSchedule(buckets, 5, 200)
    assert [short.turn(step) for step in range(20)] == [long.turn(step) for step in range(20)]
    other = BucketSchedule(buckets, 6, 20)
    assert [short.turn(step) for step in range(20)] != [other.turn(step) for step in range(20)]


def test_every_row_of_a_bucket_comes_once_an_epoch() -> None:
    rows = [12, 8]
    schedule = BucketSchedule(buckets_of(rows), 3, 40)
    seen = torch.cat([schedule.turn(step).rows(3, 4) for step in range(40)])
    for bucket in buckets_of(rows):
        own = seen[(seen >= bucket.rows.start) & (seen < bucket.rows.stop)]
        for epoch in own.split(len(bucket.rows))[:-1]:
            assert sorted(epoch.tolist()) == list(bucket.rows)


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_one_bucket_gives_the_batches_that_data_without_buckets_give(
    step: int, batch_size: int, rows: int
) -> None:
    turn = BucketSchedule(buckets_of([rows]), 7, 100).turn(step)
    assert torch.equal(turn.rows(7, batch_size), batch_rows(7, step, batch_size, rows))


def test_with_one_row_a_step_every_bucket_meets_every_role() -> None:
    schedule = BucketSchedule(buckets_of([50, 50]), 0, 400)
    shares = {"one_step": 1.0, "near": 1.0, "any": 1.0, "fake": 1.0}
    met = [(schedule.turn(step).bucket.name, role_of_row(shares, step)) for step in range(400)]  # type: ignore[arg-type]
    counts = [met.count(pair) for pair in set(met)]
    assert len(counts) == 8
    assert all(40 <= count <= 60 for count in counts)


def test_a_bucket_with_fewer_rows_than_a_batch_is_refused_and_says_what_to_do() -> None:
    prompts = Conditioning(torch.zeros(1, 2, 3))
    data = EncodedData(
        torch.zeros(12, 4, 8, 8), torch.zeros(12, dtype=torch.int64), prompts, buckets_of([8, 4])
    )
    require_full_batches(data, 4)
    with pytest.raises(TwinflowError, match="Bucket 1 has 4 training image") as refused:
        require_full_batches(data, 5)
    assert "Remove the bucket" in refused.value.fix
    require_full_batches(EncodedData(data.latents, data.caption, prompts), 64)
