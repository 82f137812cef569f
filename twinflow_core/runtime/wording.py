"""What a text encoder reads in place of a prompt: the chat around it, written out once and for all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How a family writes prompts for its text encoder. As it is made, prompts are read as they are.

    Attributes:
        before: what stands in front of the prompt.
        after: what stands behind it.
        empty: the whole text in place of the empty prompt.
        small: whether the prompt is read in small letters, without white space at its ends.
        removed: what is left out of the prompt wherever it stands; nothing if empty.
    """

    before: str = ""
    after: str = ""
    empty: str = ""
    small: bool = False
    removed: str = ""

    def of(self, prompt: str) -> str:
        """The text that is cut into tokens."""
        if not prompt:
            return self.empty
        if self.removed:
            prompt = prompt.replace(self.removed, "")
        if self.small:
            prompt = prompt.lower().strip()
        return f"{self.before}{prompt}{self.after}"


AS_IT_IS = Wording()
