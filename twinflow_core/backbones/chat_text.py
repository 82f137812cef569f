"""Prompts as a language model reads them: inside its chat template, up to a number of tokens."""

from __future__ import annotations

from typing import Any


def templated_lengths(tokenizer: Any, prompts: list[str], enable_thinking: bool) -> list[int]:
    """Tokens of each prompt as the one message of a user, the start of the answer included.

    Args:
        tokenizer: one with a chat template, as Qwen3's.
        prompts: what users write.
        enable_thinking: the template's own switch, as the family's pipeline sets it.
    """
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
        )
        for prompt in prompts
    ]
    return [len(ids) for ids in tokenizer(texts).input_ids]
