"""The two text encoders of the bundled base, trained on text alone and then frozen.

A denoiser that must learn to read and to draw at once learns slowly. Here reading comes first: small linear heads
must tell, from the pooled embedding and from the token states that the denoiser will see, what the caption says,
attribute by attribute. No held-out caption is ever read. The words of a held-out pair do occur, as they would in any
text, in sentences that are no caption of any task ("a red triangle below a square"); no picture ever shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from twinflow_core.data.shapes_world import (
    COLORS,
    LEADS,
    RELATIONS,
    SHAPES,
    TASKS,
    Content,
    Task,
    captions,
    is_held_out,
)
from twinflow_core.pretrain.recipe import TextRecipe

Progress = Callable[[str], None]

# How many answers each question about a caption has; 0 always means "not said".
QUESTIONS: tuple[int, ...] = (4, 9, 4, 9, 5, 5)
EMPTY: tuple[int, ...] = (0,) * len(QUESTIONS)


def structure(content: Content) -> tuple[int, ...]:
    """What a caption says: shape and colour of the first and second object, relation, count. 0: not said."""
    slots = []
    for shape, color in (*content.objects, (None, None))[:2]:
        slots += [_index(SHAPES, shape), _index(COLORS, color)]
    return (*slots, _index(RELATIONS, content.relation), content.count)


def _index(names: tuple[str, ...], name: str | None) -> int:
    return 0 if name is None else names.index(name) + 1


def random_reading(rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    """A caption that training may read, and what it says.

    Half are captions of the six tasks. The others mix what the tasks keep apart (a colour and a relation, no lead),
    so that the encoders learn each word for itself; a text that is a held-out caption is drawn again.
    """
    if rng.random() < 0.03:
        return "", EMPTY
    if rng.random() < 0.5:
        pool = captions(TASKS[int(rng.integers(len(TASKS)))], held_out=False)
        content, lead = pool[int(rng.integers(len(pool)))]
        return content.caption(lead), structure(content)
    while True:
        objects = [
            (SHAPES[int(rng.integers(3))], COLORS[int(rng.integers(8))] if rng.random() < 0.7 else None)
            for _ in range(int(rng.integers(1, 3)))
        ]
        relation = RELATIONS[int(rng.integers(4))] if len(objects) == 2 and rng.random() < 0.5 else None
        content = Content("color_attr", tuple(objects), relation=relation)
        lead = LEADS[int(rng.integers(len(LEADS)))]
        if not _kept_back(content, lead):
            return (content.caption(lead) if rng.random() < 0.8 else content.phrase), structure(content)


def _kept_back(content: Content, lead: str) -> bool:
    """Whether a text is a held-out caption of one of the tasks, under this lead or without one."""
    colored = [color for _, color in content.objects if color]
    if len(content.objects) == 1:
        task: Task = "colors" if colored else "single_object"
    elif len(colored) == 1 or (colored and content.relation):
        return False
    else:
        task = "color_attr" if colored else "position" if content.relation else "two_object"
    return is_held_out(replace(content, task=task), lead)


def build_encoder(tokenizer: CLIPTokenizer, recipe: TextRecipe, layers: int) -> CLIPTextModelWithProjection:
    """An untrained CLIP text encoder of the recipe's width."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=4 * recipe.width,
        projection_dim=recipe.width,
        num_hidden_layers=layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.1,
    )
    return CLIPTextModelWithProjection(config)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids, padded and cut to the tokenizer's length: int64 [N, length]."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def train_encoder(
    tokenizer: CLIPTokenizer, recipe: TextRecipe, layers: int, seed: int, progress: Progress
) -> CLIPTextModelWithProjection:
    """Train one encoder to make captions' structure readable, and freeze it.

    The pooled embedding answers every question; so does the state after the caption's end, in the layer that the
    denoiser attends to.
    """
    torch.manual_seed(seed)
    encoder = build_encoder(tokenizer, recipe, layers).train()
    heads = nn.ModuleList([nn.Linear(recipe.width, sum(QUESTIONS)) for _ in range(2)])
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.1
    )
    for step in range(recipe.steps):
        texts, answers = _batch(recipe.batch, np.random.default_rng([seed, step]))
        output = encoder(tokenize(tokenizer, texts), output_hidden_states=True)
        pooled = output.text_embeds
        loss = _answers_loss(heads[0](pooled), answers) + 1e-3 * pooled.square().mean()
        loss = loss + _answers_loss(heads[1](output.hidden_states[-2][:, -1]), answers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            progress(f"text ({layers} layers) {step + 1}/{recipe.steps} loss {loss.item():.4f}")
    encoder.eval().requires_grad_(False)
    progress(
        f"text ({layers} layers) reads {_held_out_accuracy(encoder, heads[0], tokenizer):.3f} of held-out captions"
    )
    _unit_scale(encoder, tokenizer, seed)
    return encoder


def _batch(count: int, rng: np.random.Generator) -> tuple[list[str], torch.Tensor]:
    drawn = [random_reading(rng) for _ in range(count)]
    return [text for text, _ in drawn], torch.tensor([answers for _, answers in drawn])


def _answers_loss(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    parts = logits.split(QUESTIONS, dim=1)
    return torch.stack([F.cross_entropy(part, answers[:, i]) for i, part in enumerate(parts)]).sum()


@torch.no_grad()
def _held_out_accuracy(
    encoder: CLIPTextModelWithProjection, head: nn.Module, tokenizer: CLIPTokenizer
) -> float:
    """Share of held-out captions whose every answer is right."""
    pool = [pair for task in TASKS for pair in captions(task, held_out=True)]
    answers = torch.tensor([structure(content) for content, _ in pool])
    pooled = encoder(tokenize(tokenizer, [content.caption(lead) for content, lead in pool])).text_embeds
    parts = head(pooled).split(QUESTIONS, dim=1)
    right = torch.stack([part.argmax(1) == answers[:, i] for i, part in enumerate(parts)])
    return right.all(0).float().mean().item()


@torch.no_grad()
def _unit_scale(encoder: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, seed: int) -> None:
    """Scale the projection so that pooled embeddings have unit deviation, as the denoiser's layers expect."""
    texts, _ = _batch(1024, np.random.default_rng([seed, 2**31]))
    deviation = encoder(tokenize(tokenizer, texts)).text_embeds.std()
    encoder.text_projection.weight.div_(deviation)
