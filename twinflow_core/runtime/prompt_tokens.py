"""Prompts as a text graph takes them: written out, cut into tokens, all of one length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.package import GET_AGAIN, TokenizerSpec


class PromptTokens:
    """One tokenizer of a package.

    Args:
        package: the package's folder.
        spec: what its manifest says of the tokenizer.

    Raises:
        TwinflowError: the tokenizer's file cannot be read.
    """

    def __init__(self, package: Path, spec: TokenizerSpec) -> None:
        self._spec = spec
        self._tokenizer = _load(package / spec.file)

    def __call__(self, prompts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Inputs of the text graph by name, int64 [N, L] each: token ids and, if asked for, which of them count."""
        lines = self._tokenizer.encode_batch([self._spec.wording.of(prompt) for prompt in prompts])
        given = {self._spec.ids: np.array([line.ids for line in lines], np.int64)}
        if self._spec.mask is not None:
            given[self._spec.mask] = np.array([line.attention_mask for line in lines], np.int64)
        return given


def _load(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise TwinflowError(
            "A tokenizer of the package cannot be read.", where=f"{path}: {error}", fix=GET_AGAIN
        ) from None
