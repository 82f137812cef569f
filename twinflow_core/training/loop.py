"""The fine-tuning loop: batches, steps, averages, metrics, checkpoints. Resumes to the same bytes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.sd3 import Sd3Velocity
from twinflow_core.backbones.target_time import sign_sensitivity
from twinflow_core.errors import TwinflowError
from twinflow_core.params import FinetuneParams
from twinflow_core.progress import Reporter
from twinflow_core.training.checkpoint import load_state, save_state
from twinflow_core.training.draws import batch_rows, uniform
from twinflow_core.training.ema import effective_decay, update_average
from twinflow_core.training.encoded import EMPTY_CAPTION, EncodedData
from twinflow_core.training.roles import role_counts
from twinflow_core.training.schedule import learning_rate_factor
from twinflow_core.training.twinflow_draws import draw_step
from twinflow_core.training.twinflow_objective import Batch, Networks, StepLoss, twinflow_loss

LEAST_SIGN_SENSITIVITY = 1e-6


@dataclass(frozen=True)
class Resume:
    """Where a killed run's state lies, and the hash of all that defines the run."""

    folder: Path
    key: str


class Training:
    """One fine-tuning run.

    Args:
        online: the network to train; changed in place.
        data: the training rows.
        options: the finetune section.
        resume: where to keep the state for a resumption.
    """

    def __init__(
        self, online: Sd3Velocity, data: EncodedData, options: FinetuneParams, resume: Resume
    ) -> None:
        self.online = online.train().requires_grad_(True)
        self.averaged = online.copy()
        self.base = copy.deepcopy(self.averaged) if options.real_velocity == "base" else None
        self.data = data
        self.options = options
        self.resume = resume
        self.device = next(online.parameters()).device
        self.optimizer = torch.optim.AdamW(
            online.parameters(), lr=options.learning_rate, betas=options.betas, weight_decay=0.0, fused=True
        )
        self.finished_steps = 0
        self.log: list[dict[str, float]] = []

    def run(self) -> Sd3Velocity:
        """Train to the last step and return the averaged network.

        Raises:
            TwinflowError: the network cannot tell -t from t, or the loss stopped being finite.
        """
        self._restore()
        if self.finished_steps == 0:
            self._require_sign_sensitivity()
        with Reporter("fine-tune", self.options.steps) as reporter:
            reporter.update(self.finished_steps)
            for step in range(self.finished_steps, self.options.steps):
                metrics = self._step(step)
                self.finished_steps = step + 1
                if self.finished_steps % self.options.log_every == 0:
                    self.log.append({"step": float(self.finished_steps), **metrics})
                if self.finished_steps % self.options.checkpoint_every == 0:
                    self._save()
                reporter.update(self.finished_steps, f"loss {metrics['loss']:.3f}")
        return self.averaged

    def _step(self, step: int) -> dict[str, float]:
        options = self.options
        factor = learning_rate_factor(step, options.steps, options.warmup_steps, options.decay_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * factor
        result = self._loss(step)
        result.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.online.parameters(), options.clip_norm, foreach=True)
        _require_finite(step, result, float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        update_average(self.averaged, self.online, effective_decay(options.ema_decay, step))
        return result.metrics | {
            "gradient_norm": float(norm),
            "learning_rate": options.learning_rate * factor,
        }

    def _loss(self, step: int) -> StepLoss:
        options = self.options
        counts = role_counts(options.shares, step, options.batch_size)
        rows = batch_rows(options.seed, step, options.batch_size, len(self.data))
        captions = self.data.caption[rows]
        dropped = uniform(options.seed, step, "caption dropout", len(rows)) < options.caption_dropout
        captions = torch.where(dropped, torch.full_like(captions, EMPTY_CAPTION), captions)
        batch = Batch(
            self.data.latents[rows].to(self.device),
            self.data.conditioning[captions].to(self.device),
            self.data.empty.to(self.device),
        )
        draws = draw_step(options.seed, step, counts, self.data.latent_shape).to(self.device)
        return twinflow_loss(Networks(self.online, self.averaged, self.base), batch, draws, counts, options)

    @torch.no_grad()
    def _require_sign_sensitivity(self) -> None:
        x = self.data.latents[:1].to(self.device)
        t = torch.full((1,), 0.5, device=self.device)
        conditioning: Conditioning = self.data.empty.to(self.device)
        there, mirrored = self.online(x, t, t, conditioning), self.online(x, -t, -t, conditioning)
        if sign_sensitivity(there, mirrored) < LEAST_SIGN_SENSITIVITY:
            raise TwinflowError(
                "This backbone cannot tell time -t from t, so TwinFlow's fake branch would do nothing.",
                where="F(x, -0.5, -0.5) equals F(x, 0.5, 0.5)",
                fix="Use a backbone whose time embedding keeps the sign.",
            )

    def _save(self) -> None:
        parts = {
            "online": self.online.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log": self.log,
        }
        save_state(self.resume.folder, self.resume.key, self.finished_steps, parts)

    def _restore(self) -> None:
        state = load_state(self.resume.folder, self.resume.key)
        if state is None:
            return
        self.finished_steps, parts = state
        self.online.load_state_dict(parts["online"])
        self.averaged.load_state_dict(parts["averaged"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.log = parts["log"]


def _require_finite(step: int, result: StepLoss, norm: float) -> None:
    if math.isfinite(result.metrics["loss"]) and math.isfinite(norm):
        return
    worst = [name for name, value in result.metrics.items() if not math.isfinite(value)]
    raise TwinflowError(
        f"Training stopped: the loss is not finite at step {step}.",
        where=f"step {step}: {', '.join(worst) or 'gradient'} not finite, gradient norm {norm}",
        fix="Lower finetune.learning_rate or finetune.clip_norm in params.yaml and run again.",
    )
