"""Embeddings of texts that were asked for before: bounded in bytes, the longest unused leave first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

from twinflow_core.runtime.loaded_package import PromptEmbeddings

DEFAULT_BYTES = 64 << 20


class EmbeddingCache:
    """Encodes each text once. Safe to share between threads.

    Args:
        encode: texts to embeddings; called with all texts of a request that are not here, each once.
        limit: of the embeddings held, in bytes. A text whose embeddings alone are larger is not kept.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], PromptEmbeddings], limit: int = DEFAULT_BYTES
    ) -> None:
        self._encode = encode
        self._limit = limit
        self._rows: OrderedDict[str, PromptEmbeddings] = OrderedDict()
        self._lock = Lock()
        self.bytes_held = 0
        self.hits = 0
        self.misses = 0

    def __call__(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embeddings of the prompts, row by row; at least one prompt."""
        wanted = dict.fromkeys(prompts)
        rows = self._known(wanted)
        missing = [text for text in wanted if text not in rows]
        if missing:
            encoded = self._encode(missing)
            # Copies: a view of one row would keep the whole batch alive.
            fresh = {text: encoded[i : i + 1].copy() for i, text in enumerate(missing)}
            rows |= fresh
            self._keep(fresh)
        with self._lock:
            self.hits += len(prompts) - len(missing)
            self.misses += len(missing)
        return PromptEmbeddings.cat([rows[text] for text in prompts])

    def _known(self, texts: dict[str, None]) -> dict[str, PromptEmbeddings]:
        with self._lock:
            known = {text: self._rows[text] for text in texts if text in self._rows}
            for text in known:
                self._rows.move_to_end(text)
            return known

    def _keep(self, fresh: dict[str, PromptEmbeddings]) -> None:
        with self._lock:
            for text, row in fresh.items():
                if text not in self._rows and _size(text, row) <= self._limit:
                    self._rows[text] = row
                    self.bytes_held += _size(text, row)
            while self.bytes_held > self._limit:
                text, row = self._rows.popitem(last=False)
                self.bytes_held -= _size(text, row)


def _size(text: str, row: PromptEmbeddings) -> int:
    return row.nbytes + len(text.encode("utf-8", "surrogatepass"))
