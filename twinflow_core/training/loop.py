"""The fine-tuning loop: batches, steps, averages, metrics, checkpoints. Resumes to the same bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.target_time import sign_sensitivity
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.progress import Reporter
from twinflow_core.training.best import best_step, save_best, take_best
from twinflow_core.training.bucket_schedule import BucketSchedule
from twinflow_core.training.draws import uniform
from twinflow_core.training.ema import effective_decay, update_average
from twinflow_core.training.encoded import EMPTY_CAPTION, EncodedData
from twinflow_core.training.execution import make_twins, networks_of_lanes, reduced_precision
from twinflow_core.training.finite import require_finite
from twinflow_core.training.lanes import Lanes, lane_count
from twinflow_core.training.last import keep_last
from twinflow_core.training.objectives import counts_of_step, make_objective
from twinflow_core.training.optimizer import clip_gradients, make_optimizer, set_learning_rate, trained
from twinflow_core.training.rank_rows import rows_here
from twinflow_core.training.ranks import ALONE, Ranks
from twinflow_core.training.resumption import Log, Resume, Trained, restore_progress, save_progress
from twinflow_core.training.schedule import learning_rate_factor
from twinflow_core.training.sharding import gather_into
from twinflow_core.training.signs import require_sign_sensitivity
from twinflow_core.training.speed import Speed
from twinflow_core.training.step import MicroBatch, Networks, StepLoss
from twinflow_core.training.step_calls import row_costs
from twinflow_core.training.step_metrics import joined_metrics, metrics_of_all_ranks
from twinflow_core.training.trainable import make_trainable
from twinflow_core.training.twinflow_draws import draw_step
from twinflow_core.training.validation import validation_loss


class Training:
    """One fine-tuning run. With several ranks each makes one of the same arguments and calls the same methods.

    Args:
        online: the network to train; changed in place.
        data: the training rows.
        options: the finetune section.
        resume: where to keep the state for a resumption.
        validation: held-out rows, or None to log no validation loss.
        watch: told the averaged network and the finished steps, every `sample_every` steps.
        ranks: the processes that train together; their networks are sharded over them.
        device: where to train, or None to stay where the network is, or goes with several ranks.
    """

    def __init__(
        self,
        online: Velocity,
        data: EncodedData,
        options: FinetuneParams,
        resume: Resume,
        validation: EncodedData | None = None,
        watch: Callable[[Velocity, int], None] | None = None,
        ranks: Ranks = ALONE,
        device: str | None = None,
    ) -> None:
        self.online = make_trainable(online.train(), options).to(device)
        twins = make_twins(self.online, options, ranks)
        self.averaged, self.base, self.fake_score = twins
        self.objective = make_objective(options)
        self.data, self.validation = data, validation
        self.schedule = BucketSchedule(data.buckets, options.seed, options.steps)
        self.options = options
        self.resume = resume
        self.watch = watch
        self.ranks = ranks
        self.device = next(online.parameters()).device
        lanes = lane_count(options, self.device, ranks)
        networks = networks_of_lanes(self.online, twins, lanes, options.compile)
        self.networks = networks[0]
        own = trained(self.fake_score) if self.fake_score else []
        self.lanes = Lanes(networks, trained(self.online) + own, row_costs(options))
        self.judged = Networks(self.averaged, self.averaged, self.base, self.fake_score)
        self.optimizer = make_optimizer(self.online, self.fake_score, options)
        self.trained = Trained(self.online, self.averaged, self.fake_score, self.optimizer)
        self.finished_steps = 0
        self.log: Log = []

    def run(self) -> Velocity:
        """Train to the last step and return the averaged network (in shards, see `collect`): the last, or with
        `keep_best` that of the lowest validation loss.

        Raises:
            TwinflowError: the network cannot tell -t from t, or a loss or a gradient stopped being finite.
        """
        self._restore()
        if self.finished_steps == 0:
            if self._reads_signs():
                self._require_sign_sensitivity()
            if self.ranks.first:
                _say_when_rectification_starts(self.options)
        speed = Speed(self.device)
        with Reporter("fine-tune", self.options.steps) as reporter:
            self._tell(reporter, "")
            for step in range(self.finished_steps, self.options.steps):
                metrics = self._step(step)
                self.finished_steps = step + 1
                if self.finished_steps % self.options.log_every == 0:
                    self.log.append({"step": float(self.finished_steps), **metrics, **self._probes()})
                    if self.options.keep_best and best_step(self.log) == self.finished_steps:
                        save_best(self.resume, self.trained, self.finished_steps, self.ranks)
                if self.finished_steps % self.options.checkpoint_every == 0:
                    self._save()
                if self.watch and _is_due(self.finished_steps, self.options.sample_every):
                    with self._probing():
                        self.watch(self.averaged, self.finished_steps)
                rate = speed.add(self.options.batch_size)
                if self.finished_steps % self.options.log_every == 0:
                    speed.note(self.finished_steps)
                self._tell(reporter, f"loss {metrics['loss']:.3f}, {rate:.0f} images/s")
        if self.ranks.first:
            speed.write(self.resume.folder)
        if self.options.keep_best:
            self._go_back_to_best()
        return self.averaged

    def collect(self, target: Velocity | None) -> None:
        """Copy the averaged weights that were trained out of the shards into a network as it was loaded, in float32.

        All ranks call this, one of them with a network to fill.
        """
        if target is not None:
            exact = {"weights": "float32", "quantized_base": "none"}
            target = make_trainable(target, self.options.model_copy(update=exact))
        gather_into(target, self.trained.averages(prefix=""))

    def _go_back_to_best(self) -> None:
        step = best_step(self.log)
        if step is not None and step != self.finished_steps:
            take_best(self.resume, self.trained, step, self.ranks)
            if self.ranks.first:
                print(
                    f"The candidate is the average after step {step}: its held-out loss was lowest.",
                    file=sys.stderr,
                )

    def _tell(self, reporter: Reporter, note: str) -> None:
        if self.ranks.first:
            reporter.update(self.finished_steps, note)

    def _step(self, step: int) -> dict[str, float]:
        options = self.options
        factor = learning_rate_factor(step, options.steps, options.warmup_steps, options.decay_steps)
        set_learning_rate(self.optimizer, options.learning_rate * factor)

        def loss(networks: Networks, part: MicroBatch) -> StepLoss:
            with reduced_precision(self.device, options.precision):
                return self.objective.loss(networks, part, step)

        parts = self.lanes.backward(self.rows(step), loss)
        metrics = metrics_of_all_ranks(joined_metrics(parts), self.ranks)
        norms = clip_gradients(self.online, self.fake_score, options.clip_norm)
        require_finite(step, metrics, norms)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        update_average(self.averaged, self.online, effective_decay(options.ema_decay, step))
        return metrics.values | norms.logged() | {"learning_rate": options.learning_rate * factor}

    def rows(self, step: int) -> list[MicroBatch]:
        """The rows of a 0-based step that this rank has, with their draws, in the parts that are computed at once."""
        options = self.options
        counts = counts_of_step(self.objective, options, step)
        turn = self.schedule.turn(step)
        rows = turn.rows(options.seed, options.batch_size)
        captions = self.data.caption[rows]
        dropped = uniform(options.seed, step, "caption dropout", len(rows)) < options.caption_dropout
        captions = torch.where(dropped, torch.full_like(captions, EMPTY_CAPTION), captions)
        draws = draw_step(
            options.seed, step, counts, turn.bucket.shape, options.data_free, options.rectify_t_power
        )
        return rows_here(
            self.data, rows, captions, draws, counts, self.ranks, self.device, options.accumulation
        )

    def _probes(self) -> dict[str, float]:
        """What is measured at logged steps alone; nothing here moves a weight or a draw."""
        probes: dict[str, float] = {}
        if self._reads_signs():
            probes["sign_sensitivity"] = self._sign_sensitivity()
        if self.validation is not None and _is_due(self.finished_steps, self.options.validate_every):
            with self._probing():
                probes["validation_loss"] = validation_loss(
                    self.objective,
                    self.judged,
                    self.validation,
                    self.options,
                    self.device,
                    self.ranks,
                )
        return probes

    def _probing(self) -> AbstractContextManager[object]:
        """How a network is asked outside a step: in full precision, but for blocks that are gathered short."""
        return reduced_precision(self.device, self.options.precision) if self.ranks.mesh else nullcontext()

    def _reads_signs(self) -> bool:
        """Whether the network itself gives the fakes' velocity, at negative times."""
        return self.options.objective == "twinflow" and not self.options.has_fake_score

    @torch.no_grad()
    def _sign_sensitivity(self) -> float:
        x = self.data.latents[:1].to(self.device)
        t = torch.full((1,), 0.5, device=self.device)
        conditioning: Conditioning = self.data.empty.to(self.device)
        with self._probing():
            return sign_sensitivity(self.online(x, t, t, conditioning), self.online(x, -t, -t, conditioning))

    def _require_sign_sensitivity(self) -> None:
        # All ranks go on or none does, even if one alone holds numbers that are not finite.
        everywhere = self.ranks.gather({"sensitivity": self._sign_sensitivity()})
        require_sign_sensitivity([each["sensitivity"] for each in everywhere])

    def _save(self) -> None:
        if self.options.keep_last:
            averages = self.trained.averages(prefix="")
            keep_last(self.resume.folder, self.finished_steps, averages, self.options.keep_last, self.ranks)
        save_progress(self.resume, self.trained, self.finished_steps, self.log, self.ranks)

    def _restore(self) -> None:
        state = restore_progress(self.resume, self.trained, self.ranks)
        if state is not None:
            self.finished_steps, self.log = state


def _is_due(finished_steps: int, every: int) -> bool:
    return every > 0 and finished_steps % every == 0


def _say_when_rectification_starts(options: FinetuneParams) -> None:
    if not options.rectifies or options.rectify_warmup > 0:
        return
    untrained = (
        "while the second network still is the base and knows nothing of the model's own images"
        if options.has_fake_score
        else "before the fake branch has learnt anything"
    )
    print(
        f"Rectification has its full weight from the first step, {untrained}; rectify_warmup lets it rise.",
        file=sys.stderr,
    )
