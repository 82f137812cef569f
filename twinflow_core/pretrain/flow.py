"""Flow-matching pretraining of the denoiser: x_t = t z + (1 - t) x, target v = z - x."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from torch.nn import functional as F

from twinflow_core.pretrain.denoiser import LAYOUT, FeatureDenoiser, build_denoiser, hidden_matrices
from twinflow_core.pretrain.flow_data import Batch, FlowData, draw_batch
from twinflow_core.pretrain.muon import Muon
from twinflow_core.pretrain.recipe import FlowRecipe

Progress = Callable[[str], None]
Milestone = Callable[[SD3Transformer2DModel, int], None]


def flow_loss(
    model: Callable[..., tuple[torch.Tensor, torch.Tensor]], batch: Batch, layout_weight: float
) -> tuple[torch.Tensor, float, float]:
    """The loss to minimise, and its two parts: mean squared velocity error, layout cross-entropy."""
    t = batch.t[:, None, None, None]
    velocity, layout = model(
        t * batch.z + (1 - t) * batch.x, batch.t, batch.prompts.tokens, batch.prompts.pooled
    )
    error = F.mse_loss(velocity, batch.z - batch.x)
    parts = layout.flatten(0, 1).split(LAYOUT, dim=1)
    reading = torch.stack(
        [F.cross_entropy(p, batch.layout[..., i].flatten()) for i, p in enumerate(parts)]
    ).sum()
    return error + layout_weight * reading, error.item(), reading.item()


def rate_at(step: int, recipe: FlowRecipe) -> float:
    """The share of the full rates at a step: linear warm-up, constant, linear decay to zero over the last steps."""
    up = min(1.0, (step + 1) / max(1, recipe.warmup))
    down = min(1.0, (recipe.steps - step) / max(1, recipe.decay))
    return min(up, down)


@dataclass
class FlowTrainer:
    """The state of a pretraining run, and how it moves.

    Args:
        recipe: sizes, rates, lengths.
        data: what to train on.
        seed: of the weights and of every draw.
        compiled: whether to compile the forward and backward pass (faster, minutes to start).
    """

    recipe: FlowRecipe
    data: FlowData
    seed: int
    compiled: bool = False
    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        model = build_denoiser(self.recipe, self.data.latents.shape[1], self.data.prompts.pooled.shape[1])
        self.net = FeatureDenoiser(model, self.recipe.layout_block)
        self.ema = copy.deepcopy(model).requires_grad_(False)
        hidden = hidden_matrices(model) if self.recipe.muon_lr else []
        chosen = {id(parameter) for parameter in hidden}
        rest = [parameter for parameter in self.net.parameters() if id(parameter) not in chosen]
        adam = torch.optim.AdamW(
            rest,
            lr=self.recipe.adam_lr,
            betas=(0.9, 0.95),
            weight_decay=self.recipe.weight_decay,
            foreach=True,
        )
        self.optimizers: list[torch.optim.Optimizer] = [adam]
        if hidden:
            muon = Muon(hidden, lr=self.recipe.muon_lr, weight_decay=self.recipe.weight_decay)
            self.optimizers.append(muon)
        self.forward = torch.compile(self.net) if self.compiled else self.net

    def train_step(self) -> None:
        """One batch, one update, one step of the average."""
        batch = draw_batch(self.data, self.recipe, self.seed, self.step)
        loss, error, reading = flow_loss(self.forward, batch, self.recipe.layout_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0, foreach=True)
        share = rate_at(self.step, self.recipe)
        for optimizer, rate in zip(self.optimizers, (self.recipe.adam_lr, self.recipe.muon_lr), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        average, current = list(self.ema.parameters()), list(self.net.model.parameters())
        torch._foreach_lerp_(average, current, 1 - decay)
        self.losses.append((self.step, error, reading))

    def save(self, path: Path) -> None:
        """Everything that a resumed run needs; written whole or not at all."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def warm_start(self, model: SD3Transformer2DModel) -> None:
        """Begin from an earlier base's weights; the layout head and the optimisers start afresh."""
        self.net.model.load_state_dict(model.state_dict())
        self.ema.load_state_dict(model.state_dict())

    def run(self, checkpoint: Path | None, progress: Progress, milestone: Milestone) -> SD3Transformer2DModel:
        """Train to the recipe's last step, saving and scoring on the way.

        Args:
            checkpoint: where the resumable state is kept, or None to keep none.
            progress: told a line every hundred steps.
            milestone: given the averaged denoiser and the step, every `score_every` steps and at the end.

        Returns:
            The averaged denoiser.
        """
        began = time.monotonic() - self.seconds
        while self.step < self.recipe.steps:
            self.train_step()
            self.seconds = time.monotonic() - began
            last = self.step == self.recipe.steps
            if self.step % 50 == 0 or last:
                recent = torch.tensor(self.losses[-100:])[:, 1:].mean(0)
                progress(
                    f"flow {self.step}/{self.recipe.steps} {self.seconds:.0f}s"
                    f" error {recent[0]:.4f} layout {recent[1]:.4f}"
                )
            if checkpoint and (self.step % self.recipe.save_every == 0 or last):
                self.save(checkpoint)
            if self.step % self.recipe.score_every == 0 or last:
                milestone(self.ema, self.step)
        return self.ema
