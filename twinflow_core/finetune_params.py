"""The finetune section of params.yaml: the objective, its options, and the training loop."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from twinflow_core.section import Fraction, Positive, Section


class MeanflowParams(Section):
    """How MeanFlow's derivative along the path is taken; `step` is that of the finite difference."""

    derivative: Literal["finite_difference", "forward_mode"] = "finite_difference"
    step: Annotated[float, Field(gt=0.0, le=0.1)] = 0.005


class FakeScoreParams(Section):
    """A network that learns the velocity of the fakes: low-rank weights on the frozen base, or a full copy of it."""

    weights: Literal["lora", "full"] = "lora"
    rank: Positive = 16
    learning_rate_factor: Annotated[float, Field(gt=0.0)] = 1.0


class LaunchParams(Section):
    """How many processes train together: one a GPU, the same number on every node."""

    processes: Positive = 1
    nodes: Positive = 1

    @property
    def total(self) -> int:
        """Processes over all nodes."""
        return self.processes * self.nodes


class FinetuneParams(Section):
    """The objective (TwinFlow, arXiv 2512.05150, or a rival of it) and its training loop.

    What has a default here is an option that params.yaml need not name.
    """

    objective: Literal["twinflow", "rcgm", "flow_matching", "meanflow", "vsd"] = "twinflow"
    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0.0)]
    betas: tuple[Fraction, Fraction]
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_steps: Annotated[int, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0.0)]
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    order: Annotated[int, Field(ge=1, le=4)]
    delta: Annotated[float, Field(gt=0.0, lt=0.5)]
    guidance: Annotated[float, Field(ge=0.0)]
    real_velocity: Literal["online", "base"]
    rectify_weight: Annotated[float, Field(ge=0.0)]
    adversarial_weight: Annotated[float, Field(ge=0.0)]
    shares: dict[Literal["one_step", "near", "any", "fake"], Annotated[float, Field(ge=0.0)]]
    caption_dropout: Fraction
    seed: int
    log_every: Positive
    checkpoint_every: Positive
    one_step_target: Literal["recursive", "rectified"] = "recursive"
    near_target: Literal["recursive", "velocity"] = "recursive"
    fakes: Literal["own", "shared"] = "own"
    fake_velocity: Literal["online", "own"] = "online"
    rectify_target: Literal["clamped", "normalised"] = "clamped"
    rectify_warmup: Annotated[int, Field(ge=0)] = 0
    rectify_t_power: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    data_free: bool = False
    lora_rank: Annotated[int, Field(ge=0)] = 0
    accumulation: Positive = 1
    validate_every: Annotated[int, Field(ge=0)] = 100
    sample_every: Annotated[int, Field(ge=0)] = 0
    keep_best: bool = False
    keep_last: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    optimizer: Literal["adamw", "adamw_8bit", "adamw_offload"] = "adamw"
    weights: Literal["float32", "bfloat16"] = "float32"
    quantized_base: Literal["none", "int8", "nf4"] = "none"
    meanflow: MeanflowParams = MeanflowParams()
    fake_score: FakeScoreParams = FakeScoreParams()
    launch: LaunchParams = LaunchParams()

    @property
    def has_fake_score(self) -> bool:
        """Whether a network of its own, trained beside the model, gives the velocity of the fakes."""
        return self.objective == "vsd" or (self.objective == "twinflow" and self.fake_velocity == "own")

    @property
    def needs_base(self) -> bool:
        """Whether a frozen copy of the base is asked."""
        return self.real_velocity == "base" or self.objective == "vsd"

    @property
    def rectifies(self) -> bool:
        """Whether one-step rows follow the difference of the real and the fake velocity."""
        return self.objective == "twinflow" and self.rectify_weight > 0 and self.shares.get("one_step", 0) > 0

    @model_validator(mode="after")
    def _own_samples_need_a_teacher(self) -> FinetuneParams:
        if self.data_free and (self.real_velocity != "base" or self.objective not in ("twinflow", "rcgm")):
            raise ValueError(
                "data_free trains on the model's own samples, so the frozen base must say where they should go: "
                "set real_velocity to base, and objective to twinflow or rcgm"
            )
        if self.data_free and self.guidance == 0:
            raise ValueError("with data_free only guidance asks the frozen base: set guidance above 0")
        if self.data_free and self.fakes == "shared":
            raise ValueError("with data_free every row has a sample of its own: set fakes to own")
        return self

    @model_validator(mode="after")
    def _one_step_rows_learn_something(self) -> FinetuneParams:
        rectified = self.rectify_weight > 0 and self.shares.get("fake", 0) > 0
        if self.objective == "twinflow" and self.one_step_target == "rectified" and not rectified:
            raise ValueError(
                "one_step_target rectified leaves those rows to rectification alone: set rectify_weight and the share "
                "of fake above 0, or one_step_target to recursive"
            )
        return self

    @model_validator(mode="after")
    def _few_bits_go_with_what_is_frozen(self) -> FinetuneParams:
        if self.weights == "bfloat16" and self.precision == "float32":
            raise ValueError(
                "weights in bfloat16 are computed with in bfloat16: set precision to auto or bfloat16"
            )
        if self.quantized_base != "none" and self.lora_rank == 0:
            raise ValueError(
                "quantized_base rounds weights that stay frozen: give lora_rank a positive value"
            )
        if self.quantized_base != "none" and self.has_fake_score and self.fake_score.weights == "full":
            raise ValueError(
                "fake_score.weights full trains a copy of the base, which is quantised: set it to lora"
            )
        return self

    @model_validator(mode="after")
    def _a_fake_score_starts_from_the_base(self) -> FinetuneParams:
        if self.objective == "twinflow" and self.fake_velocity == "own" and self.real_velocity != "base":
            raise ValueError(
                "with fake_velocity own a second network starts from the frozen base: set real_velocity to base, or "
                "fake_velocity to online"
            )
        return self

    @model_validator(mode="after")
    def _the_best_is_measured(self) -> FinetuneParams:
        if self.keep_best and not 0 < math.lcm(self.log_every, self.validate_every) <= self.steps:
            raise ValueError(
                "keep_best goes by the validation loss, which is measured at logged steps that are multiples of "
                "validate_every: there is none up to the last step; lower validate_every or log_every"
            )
        return self

    @model_validator(mode="after")
    def _many_processes_need_rows_and_plain_calls(self) -> FinetuneParams:
        total = self.launch.total
        if total > self.batch_size:
            raise ValueError(
                f"batch_size is the rows of a step over all processes: {self.batch_size} rows cannot be shared by "
                f"{total} processes; raise batch_size or lower launch.processes"
            )
        if total > 1 and self.objective == "meanflow" and self.meanflow.derivative == "forward_mode":
            raise ValueError(
                "forward_mode works on one process: set meanflow.derivative to finite_difference, or "
                "launch.processes and launch.nodes to 1"
            )
        return self

    @model_validator(mode="after")
    def _rectification_needs_a_fake_branch(self) -> FinetuneParams:
        trained = self.shares.get("fake", 0) > 0 and self.adversarial_weight > 0
        if self.rectifies and not trained:
            raise ValueError(
                "rectification would follow a fake branch that nothing trains: give shares.fake and "
                "adversarial_weight a positive value, or set rectify_weight to 0"
            )
        return self

    @model_validator(mode="after")
    def _vsd_trains_two_networks(self) -> FinetuneParams:
        both = self.shares.get("one_step", 0) > 0 and self.shares.get("fake", 0) > 0
        if self.objective == "vsd" and not both:
            raise ValueError(
                "vsd trains the model on one_step rows and on fake rows the second network that it follows: give "
                "shares.one_step and shares.fake a positive value"
            )
        return self
