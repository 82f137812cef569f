"""What a denoiser is told about the prompt, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PARTS = EMBEDS, POOLED, MASK = "prompt_embeds", "pooled_prompt_embeds", "prompt_mask"


@dataclass(frozen=True)
class Conditioning:
    """Prompt embeddings of a batch; what a family does not have is None in every batch of it.

    Attributes:
        prompt_embeds: [B, T, D].
        pooled: [B, P], or None.
        mask: bool [B, T], true where a token counts, or None where all do.
    """

    prompt_embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return self.prompt_embeds.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Conditioning:
        return self._each(lambda part: part[rows])

    def repeat(self, rows: int) -> Conditioning:
        """One row's conditioning for `rows` rows, without copying memory."""
        return self._each(lambda part: part.expand(rows, *part.shape[1:]))

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on another device."""
        return self._each(lambda part: part.to(device))

    def in_type(self, dtype: torch.dtype) -> Conditioning:
        """The same with embeddings of this floating type; the mask stays what it is."""
        return Conditioning(
            self.prompt_embeds.to(dtype), None if self.pooled is None else self.pooled.to(dtype), self.mask
        )

    @staticmethod
    def cat(parts: list[Conditioning]) -> Conditioning:
        """Rows of several batches of one family, one after the other.

        With masks, batches of fewer tokens are padded on the right with zeros that do not count; without,
        all have one T.
        """
        if all(part.mask is not None for part in parts):
            tokens = max(part.prompt_embeds.shape[1] for part in parts)
            parts = [part.padded(tokens) for part in parts]
        return Conditioning(
            torch.cat([part.prompt_embeds for part in parts]),
            _cat([part.pooled for part in parts]),
            _cat([part.mask for part in parts]),
        )

    def padded(self, tokens: int) -> Conditioning:
        """With so many tokens, those more on the right being zeros that do not count.

        Raises:
            ValueError: there is no mask to say which tokens count, and they are fewer.
        """
        more = tokens - self.prompt_embeds.shape[1]
        if more == 0:
            return self
        if self.mask is None:
            raise ValueError("prompts without a mask cannot be padded")
        embeds = functional.pad(self.prompt_embeds, (0, 0, 0, more))
        return Conditioning(embeds, self.pooled, functional.pad(self.mask, (0, more)))

    def trimmed(self) -> Conditioning:
        """Without the last tokens that count in no row: what they would cost is storage and attention."""
        if self.mask is None:
            return self
        used = int(self.mask.any(dim=0).nonzero().max()) + 1 if bool(self.mask.any()) else 1
        embeds, mask = self.prompt_embeds[:, :used], self.mask[:, :used]
        return Conditioning(embeds.contiguous(), self.pooled, mask.contiguous())

    def tensors(self) -> dict[str, Tensor]:
        """The parts there are, by the names under which they are stored."""
        parts = {EMBEDS: self.prompt_embeds, POOLED: self.pooled, MASK: self.mask}
        return {name: part for name, part in parts.items() if part is not None}

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Conditioning:
        """What `tensors` gave. Raises `KeyError` without prompt embeddings."""
        return Conditioning(tensors[EMBEDS], tensors.get(POOLED), tensors.get(MASK))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning(
            change(self.prompt_embeds),
            None if self.pooled is None else change(self.pooled),
            None if self.mask is None else change(self.mask),
        )


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    if present and len(present) < len(parts):
        raise ValueError("some of the batches have a part that others lack")
    return torch.cat(present) if present else None
