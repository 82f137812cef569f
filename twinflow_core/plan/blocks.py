"""A transformer with fewer blocks, and what the whole one needs by counting them.

All that a training keeps or computes is the same for every block of a kind, so it is affine in the numbers of blocks
and, separately, in the rows. A few small models say it all, in a second where a 20-billion one takes a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twinflow_core.plan.families import Config, Family

Measured = dict[str, int]


def block_counts(config: Config, family: Family) -> tuple[int, ...]:
    """How many blocks of each kind the transformer has, in the order of `family.counts`."""
    if "dual_attention_layers" in family.counts:
        dual = len(config.get("dual_attention_layers") or ())
        return (dual, config["num_layers"] - dual)
    return tuple(config[key] for key in family.counts)


def with_blocks(config: Config, family: Family, counts: Sequence[int]) -> dict[str, Any]:
    """The configuration with other numbers of blocks."""
    if "dual_attention_layers" in family.counts:
        dual, plain = counts
        return {**config, "dual_attention_layers": tuple(range(dual)), "num_layers": dual + plain}
    return {**config, **dict(zip(family.counts, counts, strict=True))}


def over_rows(
    measure: Callable[[tuple[int, ...], int], Measured], counts: tuple[int, ...]
) -> tuple[Measured, Measured]:
    """What `measure(counts, 1)` would give, and what every further row adds.

    Args:
        measure: gives values affine in each block count and in rows; it is asked for models of one to three blocks
            a kind, at one and two rows. Kinds with count zero stay at zero.
        counts: blocks of each kind, as `block_counts`.
    """
    at_one = _over_blocks(lambda blocks: measure(blocks, 1), counts)
    at_two = _over_blocks(lambda blocks: measure(blocks, 2), counts)
    return at_one, {name: at_two[name] - at_one[name] for name in at_one}


def _over_blocks(measure: Callable[[tuple[int, ...]], Measured], counts: tuple[int, ...]) -> Measured:
    # The last block of some models does less than those before it: of its kind the smallest model has two.
    least = tuple(
        min(count, 2 if position == len(counts) - 1 else 1) for position, count in enumerate(counts)
    )
    start = measure(least)
    total = dict(start)
    for kind, count in enumerate(counts):
        if count > least[kind]:
            more = measure(tuple(n + (position == kind) for position, n in enumerate(least)))
            for name in total:
                total[name] += (count - least[kind]) * (more[name] - start[name])
    return total
