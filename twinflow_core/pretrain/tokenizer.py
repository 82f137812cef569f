"""A CLIP tokenizer for the shapes world: byte level, so every text encodes; each word of the world is one token."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from twinflow_core.data.shapes_world import TASKS, captions

START, END = "<|startoftext|>", "<|endoftext|>"


def world_words() -> list[str]:
    """Every word of the world's captions, sorted."""
    said = [
        pair for task in TASKS for held_out in (False, True) for pair in captions(task, held_out=held_out)
    ]
    texts = (content.caption(lead) for content, lead in said)
    return sorted({word for text in texts for word in text.split()})


def build_tokenizer(max_length: int) -> CLIPTokenizer:
    """Train the merges on the world's words and add every byte, alone and at a word's end.

    Args:
        max_length: tokens of a caption, start and end included; longer captions are cut.
    """
    merges = _merges(world_words())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [
        *alphabet,
        *(f"{byte}</w>" for byte in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in order, that join each of the words into one token."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(words, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
