"""A tokenizer as the package holds it: without transformers, cutting and filling up every text to one length."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from twinflow_core.runtime.package import TokenizerSpec
from twinflow_core.runtime.wording import AS_IT_IS, Wording

MASK_INPUT = "attention_mask"


def ids_input(number: int) -> str:
    """The text graph's input for the ids of its first tokenizer, second, and so on, counted from 0."""
    return "input_ids" if number == 0 else f"input_ids_{number + 1}"


@dataclass(frozen=True)
class PaddedTokenizer:
    """A tokenizer of transformers and how the family's pipeline calls it.

    Attributes:
        stock: the tokenizer.
        length: tokens to which every text is cut or filled up.
        wording: what is read in place of a prompt.
        masked: whether the text graph is told which tokens are the text's.
        side: where texts are filled up, "right" or "left".
        special: whether the tokenizer adds its own first and last tokens.
    """

    stock: Any
    length: int
    wording: Wording = AS_IT_IS
    masked: bool = False
    side: str = "right"
    special: bool = True

    def backend(self) -> Tokenizer:
        """The same without transformers."""
        document = json.loads(self.stock.backend_tokenizer.to_str())
        if not self.special:
            document["post_processor"] = None
        backend = Tokenizer.from_str(json.dumps(document))
        backend.enable_truncation(self.length, direction=self.stock.truncation_side)
        backend.enable_padding(
            direction=self.side,
            length=self.length,
            pad_id=self.stock.pad_token_id,
            pad_token=self.stock.pad_token,
            pad_type_id=self.stock.pad_token_type_id,
        )
        return backend

    def spec(self, file: str, number: int) -> TokenizerSpec:
        """What the manifest says of it, the text graph's tokenizer of this number, saved as `file`."""
        return TokenizerSpec(file, ids_input(number), MASK_INPUT if self.masked else None, self.wording)
