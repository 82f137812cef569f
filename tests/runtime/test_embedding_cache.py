"""Every text is encoded once while there is room, rows come back in order, and the bound holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.runtime.embedding_cache import EmbeddingCache
from twinflow_core.runtime.loaded_package import PromptEmbeddings

ROW_BYTES = (3 * 2 + 5) * 4 + 1
TEXTS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)


class Encoder:
    """Embeddings that tell which text they are of."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> PromptEmbeddings:
        self.asked.append(list(texts))
        codes = np.array([ord(text) for text in texts], np.float32)
        return PromptEmbeddings(
            {
                "prompt_embeds": np.broadcast_to(codes[:, None, None], (len(texts), 3, 2)),
                "pooled_prompt_embeds": np.broadcast_to(codes[:, None], (len(texts), 5)),
            }
        )


@given(requests=st.lists(TEXTS, max_size=12), room=st.integers(0, 4))
def test_rows_are_right_and_the_bound_holds(requests: list[list[str]], room: int) -> None:
    cache = EmbeddingCache(Encoder(), room * ROW_BYTES)
    for texts in requests:
        rows = cache(texts).parts
        assert rows["prompt_embeds"].shape == (len(texts), 3, 2)
        assert [chr(int(code)) for code in rows["pooled_prompt_embeds"][:, 0]] == texts
        assert [chr(int(code)) for code in rows["prompt_embeds"][:, 2, 1]] == texts
        assert cache.bytes_held <= room * ROW_BYTES
    assert cache.hits + cache.misses == sum(map(len, requests))


def test_each_text_is_encoded_once() -> None:
    encoder = Encoder()
    cache = EmbeddingCache(encoder)
    cache(["a", "b", "a"])
    cache(["b", "c"])
    assert encoder.asked == [["a", "b"], ["c"]]
    assert (cache.hits, cache.misses) == (2, 3)


def test_the_longest_unused_leaves_first() -> None:
    encoder = Encoder()
    cache = EmbeddingCache(encoder, 2 * ROW_BYTES)
    for text in ("a", "b", "a", "c", "a", "b"):
        cache([text])
    assert encoder.asked == [["a"], ["b"], ["c"], ["b"]]
