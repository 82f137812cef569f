"""Tiny language models and their tokenizers, for the text encoders of tiny pipelines: real classes, no downloads."""

from __future__ import annotations

from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, T5Config, T5EncoderModel, T5Tokenizer

from tests.backbones.tiny_merges import spelling

WORDS = "a photo of one two three four red green blue yellow circle square triangle left right above below"
CHAT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
# Qwen3's, for one message: without thinking, an empty thought opens the answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def chat_tokenizer(max_tokens: int) -> Qwen2Tokenizer:
    """Qwen's byte-level BPE with merges that spell WORDS; every byte has a token, so no text is unknown."""
    single = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*WORDS.split(), "user", "assistant"]
    # With their space first: merges of letters alone would otherwise take the words from it.
    merges = spelling([*("Ġ" + word for word in words), *words])
    vocabulary = {token: index for index, token in enumerate([*single, *dict.fromkeys(merges.values())])}
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=list(merges),
        extra_special_tokens=CHAT_TOKENS[1:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_tokens,
    )


def qwen3_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3Config:
    """Qwen3 4B in small: grouped queries, heads wider than the hidden size allows for, tied embeddings."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5_tokenizer(max_tokens: int) -> T5Tokenizer:
    """A Unigram tokenizer that knows WORDS and the letters."""
    pieces = ["▁", *(f"▁{word}" for word in WORDS.split()), *"abcdefghijklmnopqrstuvwxyz"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(
        vocab=[*special, *((piece, -2.0) for piece in dict.fromkeys(pieces))],
        extra_ids=0,
        model_max_length=max_tokens,
    )


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    """T5 v1.1 in small: gated GELU, heads of their own width."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config).eval()
