"""A prompt inside the text that its family writes around it."""

from __future__ import annotations

import pytest

from twinflow_core.runtime.wording import AS_IT_IS, Wording


@pytest.mark.parametrize("prompt", ["", " A Circle\n", "{} {{x}}"])
def test_nothing_said_is_nothing_changed(prompt: str) -> None:
    assert AS_IT_IS.of(prompt) == prompt


def test_what_is_removed_and_made_small_is_the_prompt_alone() -> None:
    chat = Wording("<User> [IMG]", " [IMG] </User>", empty="Nothing", small=True, removed="[IMG]")
    assert chat.of(" A [IMG]Circle ") == "<User> [IMG]a circle [IMG] </User>"
    assert chat.of("") == "Nothing"
    assert chat.of("[IMG]") == "<User> [IMG] [IMG] </User>"
