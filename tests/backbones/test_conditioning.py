"""Batches of prompts: padding and trimming keep what counts, and the mask tells it."""

import pytest
import torch

from twinflow_core.backbones.conditioning import Conditioning


def masked(*lengths: int, tokens: int) -> Conditioning:
    mask = torch.arange(tokens) < torch.tensor(lengths).unsqueeze(1)
    return Conditioning(torch.randn(len(lengths), tokens, 3) * mask.unsqueeze(2), None, mask)


def test_batches_of_different_length_are_padded_with_what_does_not_count() -> None:
    short, long = masked(2, 1, tokens=2), masked(5, tokens=6)
    both = Conditioning.cat([short, long])
    assert both.prompt_embeds.shape == (3, 6, 3)
    assert both.mask is not None
    assert both.mask.sum(dim=1).tolist() == [2, 1, 5]
    assert torch.equal(both.prompt_embeds[:2, :2], short.prompt_embeds)
    assert not both.prompt_embeds[:2, 2:].any()


def test_trimming_drops_what_counts_in_no_row() -> None:
    whole = masked(2, 4, tokens=9)
    trimmed = whole.trimmed()
    assert trimmed.prompt_embeds.shape == (2, 4, 3)
    assert torch.equal(
        Conditioning.cat([trimmed, masked(9, tokens=9)])[:2].prompt_embeds, whole.prompt_embeds
    )
    without = Conditioning(torch.ones(1, 4, 3))
    assert without.trimmed() is without


def test_batches_without_a_mask_have_one_length() -> None:
    with pytest.raises(RuntimeError, match="Sizes of tensors"):
        Conditioning.cat([Conditioning(torch.ones(1, 2, 3)), Conditioning(torch.ones(1, 3, 3))])
    with pytest.raises(ValueError, match="others lack"):
        Conditioning.cat([Conditioning(torch.ones(1, 3, 3)), masked(2, tokens=3)])
