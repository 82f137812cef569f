"""Prompts as a language model reads them: inside its chat template, up to a number of tokens."""

from __future__ import annotations

from typing import Any


def user_message(tokenizer: Any, prompt: str, enable_thinking: bool) -> str:
    """The prompt as the one message of a user, the start of the answer included.

    Args:
        tokenizer: one with a chat template, as Qwen3's.
        prompt: what a user writes.
        enable_thinking: the template's own switch, as the family's pipeline sets it.
    """
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=enable_thinking,
    )
    return text


def templated_lengths(tokenizer: Any, prompts: list[str], enable_thinking: bool) -> list[int]:
    """Tokens of each prompt as a `user_message`."""
    texts = [user_message(tokenizer, prompt, enable_thinking) for prompt in prompts]
    return [len(ids) for ids in tokenizer(texts).input_ids]
