"""Rows of many parts are the rows of their concatenation."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.encoding.joined import Joined


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_any_rows_in_any_order(sizes: list[int], draw: st.DataObject) -> None:
    parts = list(torch.arange(2 * sum(sizes)).reshape(-1, 2).split(sizes))
    joined, whole = Joined(parts, torch.cat), torch.cat(parts)
    rows = torch.tensor(draw.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=12)), dtype=torch.int64)
    assert torch.equal(joined[rows], whole[rows])
    first, last = (draw.draw(st.integers(0, sum(sizes))) for _ in range(2))
    assert torch.equal(joined[first:last], whole[first:last])
    assert len(joined) == len(whole)


def test_conditionings_join_alike() -> None:
    parts = [Conditioning(torch.rand(k, 3, 4), torch.rand(k, 5)) for k in (2, 1, 4)]
    joined, whole = Joined(parts, Conditioning.cat), Conditioning.cat(parts)
    rows = torch.tensor([6, 0, 2, 2, 5])
    assert torch.equal(joined[rows].prompt_embeds, whole[rows].prompt_embeds)
    assert torch.equal(joined[rows].pooled, whole[rows].pooled)
