"""What the denoiser trains on: pictures encoded once, captions embedded once, and the draws of each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from twinflow_core.data.shapes_render import render
from twinflow_core.data.shapes_scene import CANVAS, sample_scene
from twinflow_core.data.shapes_world import COLORS, SHAPES, TASKS, Scene, captions, training_captions
from twinflow_core.pretrain.denoiser import LATENT_SIDE
from twinflow_core.pretrain.recipe import FlowRecipe
from twinflow_core.pretrain.text import tokenize
from twinflow_core.pretrain.vae import encode_images

# The stock pipeline appends zero states where a T5 encoder would be, 256 unless told otherwise. The denoiser sees
# one mostly, sometimes more, so that their number does not matter to it: (states, share of steps, share of batch).
ZERO_STATES: tuple[tuple[int, float, float], ...] = ((1, 0.86, 1.0), (12, 0.11, 1.0), (256, 0.03, 0.25))


@dataclass(frozen=True)
class Prompts:
    """Captions as the denoiser reads them.

    Args:
        tokens: states [N, length, width] of both encoders side by side.
        pooled: pooled embeddings [N, width].
    """

    tokens: torch.Tensor
    pooled: torch.Tensor

    def rows(self, index: torch.Tensor, zero_states: int) -> Prompts:
        """Some of the captions, with zero states appended."""
        tokens = self.tokens[index]
        zeros = tokens.new_zeros(len(tokens), zero_states, tokens.shape[2])
        return Prompts(torch.cat([tokens, zeros], dim=1), self.pooled[index])


@dataclass(frozen=True)
class FlowData:
    """Latents [N, C, 8, 8], layouts uint8 [N, 64, 2], each picture's caption row [N], and the captions.

    The last row of `prompts` is the empty caption.
    """

    latents: torch.Tensor
    layouts: torch.Tensor
    caption_rows: torch.Tensor
    prompts: Prompts


@dataclass(frozen=True)
class Batch:
    """One step's draws: data x, noise z, times t, layouts, and the captions' states and pooled embeddings."""

    x: torch.Tensor
    z: torch.Tensor
    t: torch.Tensor
    layout: torch.Tensor
    prompts: Prompts


@torch.no_grad()
def embed_texts(
    tokenizer: CLIPTokenizer, encoders: tuple[CLIPTextModelWithProjection, ...], texts: list[str]
) -> Prompts:
    """Captions through both encoders, as the stock pipeline does it (last layer but one, side by side)."""
    ids = tokenize(tokenizer, texts)
    outputs = [encoder(ids, output_hidden_states=True) for encoder in encoders]
    tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=2)
    return Prompts(tokens, torch.cat([output.text_embeds for output in outputs], dim=1))


def layout_of(scene: Scene) -> np.ndarray:
    """Which shape and colour lies over the middle of each latent cell, 0 for the ground: uint8 [64, 2]."""
    cell = CANVAS // LATENT_SIDE
    grid = np.zeros((LATENT_SIDE, LATENT_SIDE, 2), dtype=np.uint8)
    middle = (np.arange(LATENT_SIDE) + 0.5) * cell
    for thing in scene.objects:
        rows = (middle >= thing.y) & (middle <= thing.y + thing.size)
        columns = (middle >= thing.x) & (middle <= thing.x + thing.size)
        grid[np.ix_(rows, columns)] = (SHAPES.index(thing.shape) + 1, COLORS.index(thing.color) + 1)
    return grid.reshape(-1, 2)


def build_data(
    recipe: FlowRecipe,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    encoders: tuple[CLIPTextModelWithProjection, ...],
    seed: int,
) -> FlowData:
    """Render and encode the training set, with the recipe's share of each task."""
    row_of = {pair: row for row, pair in enumerate(training_captions())}
    prompts = embed_texts(tokenizer, encoders, [*(c.caption(lead) for c, lead in row_of), ""])
    rng = np.random.default_rng([seed, 7])
    tasks = rng.choice(
        len(TASKS), size=recipe.images, p=np.array(recipe.task_weights) / sum(recipe.task_weights)
    )
    latents, layouts, rows = [], [], []
    for chunk in np.array_split(tasks, max(1, recipe.images // 4000)):
        pictures = []
        for task in chunk:
            pool = captions(TASKS[task], held_out=False)
            pair = pool[int(rng.integers(len(pool)))]
            scene = sample_scene(pair[0], rng)
            pictures.append(render(scene))
            layouts.append(layout_of(scene))
            rows.append(row_of[pair])
        latents.append(encode_images(vae, np.stack(pictures)))
    return FlowData(torch.cat(latents), torch.from_numpy(np.stack(layouts)), torch.tensor(rows), prompts)


def draw_batch(data: FlowData, recipe: FlowRecipe, seed: int, step: int) -> Batch:
    """The draws of one step; they depend on (seed, step) alone, so that a resumed run goes on as if never stopped.

    Times are stratified over the batch, then shifted towards noise.
    """
    rng = np.random.default_rng([seed, step])
    kind = int(rng.choice(len(ZERO_STATES), p=[share for _, share, _ in ZERO_STATES]))
    zero_states, _, part = ZERO_STATES[kind]
    size = max(1, int(recipe.batch * part))
    index = torch.from_numpy(rng.integers(len(data.latents), size=size))
    dropped = torch.from_numpy(rng.random(size) < recipe.caption_dropout)
    rows = torch.where(dropped, len(data.prompts.pooled) - 1, data.caption_rows[index])
    x = data.latents[index]
    u = (rng.permutation(size) + rng.random(size)) / size
    t = recipe.time_shift * u / (1 + (recipe.time_shift - 1) * u)
    z = rng.standard_normal(x.shape, dtype=np.float32)
    return Batch(
        x=x,
        z=torch.from_numpy(z),
        t=torch.from_numpy(t.astype(np.float32)),
        layout=data.layouts[index].long(),
        prompts=data.prompts.rows(rows, zero_states),
    )
