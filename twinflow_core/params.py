"""`params.yaml` as typed, validated models: the one file that a user edits.

Every section is what one stage or one flow reads, so that changing a gate or a schedule never retrains.
An unknown key, a wrong type or an impossible number is a `TwinflowError` that names file and key.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from twinflow_core.errors import TwinflowError

PARAMS_FILE = "params.yaml"

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no value changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataParams(Section):
    """Where the images come from and what makes one unusable."""

    source: str
    resolution: Positive
    min_side: Positive
    max_pixels: Positive
    near_duplicate_bits: Annotated[int, Field(ge=0, le=32)]
    max_rejected: Fraction
    validation: Annotated[float, Field(gt=0.0, lt=1.0)]
    rows_per_shard: Positive


class BaseParams(Section):
    """The many-step model to start from: a diffusers folder, or a hub id with its revision."""

    folder: str
    hub: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _hub_needs_revision(self) -> BaseParams:
        if self.hub is not None and self.revision is None:
            raise ValueError("a hub model needs the revision (a commit hash) that it is pinned to")
        return self


class EncodeParams(Section):
    """How latents and prompt embeddings are made."""

    batch_size: Positive


class ReferenceParams(Section):
    """How the base model itself is sampled: the ceiling of every comparison."""

    steps: Positive
    guidance: Annotated[float, Field(ge=0.0)]


class FinetuneParams(Section):
    """The TwinFlow objective (arXiv 2512.05150) and its training loop."""

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


class EvaluateParams(Section):
    """What is sampled and how it is scored."""

    scorer: Literal["auto", "shapes", "distribution"]
    prompts_per_task: Positive
    images_per_prompt: Annotated[int, Field(ge=2)]
    few_steps: tuple[Positive, ...]
    batch_size: Positive
    seed: int


class ExportParams(Section):
    """What goes into the ONNX package."""

    steps: tuple[Positive, ...]
    opset: Annotated[int, Field(ge=20, le=23)]
    precision: Literal["fp32", "fp16", "int8", "int4"] = "fp32"


class Rule(Section):
    """One rule of a gate: a metric, a bound on it, and what happens when it is missed.

    `min`/`max` bound the value itself. `champion_margin` makes it a non-inferiority rule: the candidate may
    be worse than the champion by at most this much (absolute, in the metric's unit), at `confidence`.
    """

    id: str
    metric: str
    min: float | None = None
    max: float | None = None
    champion_margin: Annotated[float, Field(ge=0.0)] | None = None
    better: Literal["higher", "lower"] = "higher"
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    severity: Literal["required", "warn"] = "required"

    @model_validator(mode="after")
    def _bounds_something(self) -> Rule:
        if self.min is None and self.max is None and self.champion_margin is None:
            raise ValueError("a rule needs min, max or champion_margin")
        return self


class QualityGate(Section):
    """Rules before export, by the scorer that makes their metrics."""

    shapes: tuple[Rule, ...] = Field(min_length=1)
    distribution: tuple[Rule, ...] = Field(min_length=1)


class GatesParams(Section):
    """Both gates and their mode."""

    mode: Literal["enforce", "dry-run"]
    on_no_champion: Literal["promote", "needs-approval", "reject"]
    resamples: Annotated[int, Field(ge=100)]
    quality: QualityGate
    serving: tuple[Rule, ...] = Field(min_length=1)


class RegistryParams(Section):
    """Where versions go and how far a run promotes on its own."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    promote_to: Literal["staging", "none"]


class ServingParams(Section):
    """How the serving gate measures the exported package."""

    latency_batch: Positive
    latency_repeats: Positive
    rescore_prompts_per_task: Positive


class RunParams(Section):
    """How a run treats its stages."""

    stage_timeout_minutes: Positive
    stage_retries: Annotated[int, Field(ge=0)]


class Params(Section):
    """All of params.yaml."""

    data: DataParams
    base: BaseParams
    encode: EncodeParams
    reference: ReferenceParams
    finetune: FinetuneParams
    evaluate: EvaluateParams
    export: ExportParams
    serving: ServingParams
    gates: GatesParams
    registry: RegistryParams
    run: RunParams


def load_params(path: Path) -> Params:
    """Read and validate a params file.

    Args:
        path: the YAML file.

    Raises:
        TwinflowError: the file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TwinflowError(
            "The parameter file is missing.", where=str(path), fix="Run from the repository's root."
        ) from None
    except yaml.YAMLError as error:
        raise TwinflowError(
            "The parameter file is not valid YAML.", where=f"{path}: {error}", fix="Correct the line named."
        ) from None
    if not isinstance(document, dict):
        raise TwinflowError(
            "The parameter file holds no sections.", where=str(path), fix="Restore it from git."
        )
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise _explain(error, path) from None


def _explain(error: ValidationError, path: Path) -> TwinflowError:
    """The first fault of a validation as a sentence; the number of others is said too."""
    faults = error.errors()
    # A misspelt key gives two faults, unknown and missing: the unknown one says where the slip is.
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    key = ".".join(str(part) for part in first["loc"])
    others = f" ({len(faults) - 1} more fault(s) in this file)" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        return TwinflowError(
            f"Unknown key `{key}`{others}.", where=f"{path}: {key}", fix=_suggestion(first["loc"])
        )
    if first["type"] == "missing":
        return TwinflowError(f"Key `{key}` is missing{others}.", where=f"{path}: {key}", fix="Add the key.")
    return TwinflowError(
        f"`{key}` cannot be {first['input']!r}: {first['msg']}{others}.",
        where=f"{path}: {key}",
        fix="Give a value in range.",
    )


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: Any = Params
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field is not None else None
    known = list(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Remove it; known keys here: {', '.join(known)}." if known else "Remove it."
