"""Byte-pair merges that spell whole words, chained by hand: `BpeTrainer` breaks ties differently each run."""

from __future__ import annotations

from collections.abc import Iterable


def spelling(words: Iterable[str]) -> dict[tuple[str, str], str]:
    """Merges by what they join, in order, that build each word from its first character on."""
    merges: dict[tuple[str, str], str] = {}
    for word in words:
        joined = word[0]
        for character in word[1:]:
            merges[joined, character] = joined + character
            joined += character
    return merges
