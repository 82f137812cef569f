"""The tokenizer and the reading lessons of the text encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from twinflow_core.data.shapes_world import TASKS, Content, captions
from twinflow_core.pretrain.recipe import TextRecipe
from twinflow_core.pretrain.text import QUESTIONS, random_reading, structure, tokenize, train_encoder
from twinflow_core.pretrain.tokenizer import build_tokenizer, world_words

TOKENIZER = build_tokenizer(12)


def test_each_word_of_the_world_is_one_token_and_every_caption_fits() -> None:
    assert all(len(TOKENIZER(word).input_ids) == 3 for word in world_words())
    for task in TASKS:
        for content, lead in captions(task, held_out=True):
            assert len(TOKENIZER(content.caption(lead)).input_ids) <= 12


@given(st.text(max_size=30))
def test_any_text_encodes_without_an_unknown_token(text: str) -> None:
    ids = TOKENIZER(text).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.unk_token_id not in ids[1:-1]


def test_the_tokenizer_survives_saving(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    text = "a photo of three triangles, é"
    assert again(text).input_ids == TOKENIZER(text).input_ids
    assert again.model_max_length == 12


def test_structure_says_what_the_caption_says() -> None:
    two = Content("color_attr", (("circle", "red"), ("square", "blue")))
    assert structure(two) == (1, 1, 2, 5, 0, 1)
    assert structure(Content("counting", (("triangle", None),), count=4)) == (3, 0, 0, 0, 0, 4)
    above = Content("position", (("circle", None), ("square", None)), relation="above")
    assert structure(above) == (1, 0, 2, 0, 3, 1)


def test_reading_never_meets_a_held_out_caption() -> None:
    held = {c.caption(lead) for task in TASKS for c, lead in captions(task, held_out=True)}
    held |= {c.phrase for c, _ in captions("color_attr", held_out=True)}
    rng = np.random.default_rng(0)
    for _ in range(3000):
        text, answers = random_reading(rng)
        assert text not in held
        assert all(0 <= answer < choices for answer, choices in zip(answers, QUESTIONS, strict=True))


def test_a_trained_encoder_is_frozen_and_pools_at_unit_scale() -> None:
    recipe = TextRecipe(width=16, heads=2, steps=20, batch=16)
    encoder = train_encoder(TOKENIZER, recipe, 2, seed=0, progress=lambda line: None)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    texts = [random_reading(np.random.default_rng(i))[0] for i in range(200)]
    assert 0.5 < encoder(tokenize(TOKENIZER, texts)).text_embeds.std() < 2
    assert torch.equal(tokenize(TOKENIZER, [""])[0, 1:], torch.full((11,), TOKENIZER.eos_token_id))
