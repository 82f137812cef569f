"""`params.yaml` as typed, validated models: the one file that a user edits.

Every section is what one stage or one flow reads, so that changing a gate or a schedule never retrains.
An unknown key, a wrong type or an impossible number is a `TwinflowError` that names file and key.
"""

from __future__ import annotations

import difflib
import reprlib
from fractions import Fraction as Ratio
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.image_size import ImageSize
from twinflow_core.section import Fraction, Positive, Section
from twinflow_core.yaml_files import UnreadableYamlError, read_yaml

PARAMS_FILE = "params.yaml"

Size = Annotated[ImageSize, BeforeValidator(ImageSize.read), PlainSerializer(str)]


class DataParams(Section):
    """Where the images come from and what makes one unusable."""

    source: str
    # Which files of the source, where packed ones keep image and caption: None for all, for the usual names.
    files: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    resolution: Positive
    # The sizes to train at, each image at that of the nearest shape; None: all at the square of `resolution`.
    buckets: Annotated[tuple[Size, ...], Field(min_length=1)] | None = None
    min_side: Positive
    max_pixels: Positive
    near_duplicate_bits: Annotated[int, Field(ge=0, le=32)]
    max_rejected: Fraction
    validation: Annotated[float, Field(gt=0.0, lt=1.0)]
    rows_per_shard: Positive

    @property
    def square(self) -> ImageSize:
        """The size that everything but `buckets` and `export.sizes` is made at."""
        return ImageSize(self.resolution, self.resolution)

    @property
    def largest_size(self) -> ImageSize:
        """The size of most pixels that is trained at; of several such the first."""
        return max(self.buckets or (self.square,), key=lambda size: size.area)

    @model_validator(mode="after")
    def _buckets_differ_in_shape(self) -> DataParams:
        """The nearest shape alone decides: of two sizes of one shape the second would never get an image."""
        shapes: dict[Ratio, ImageSize] = {}
        for bucket in self.buckets or ():
            other = shapes.setdefault(Ratio(*bucket), bucket)
            if other is not bucket:
                raise ValueError(f"buckets {other} and {bucket} have one shape: keep one of them")
        return self


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
    text_precision: Literal["fp32", "fp16", "int8", "int4"] = "fp32"
    # Other sizes to draw at than the square of data.resolution.
    sizes: tuple[Size, ...] = ()


class Rule(Section):
    """One rule of a gate: a metric, a bound on it, and what happens when it is missed.

    `min`/`max` bound the value itself. `champion_margin` makes it a non-inferiority rule: the candidate may
    be worse than the champion by at most this much (absolute, in the metric's unit). Where the metric has an
    interval, that decides, at `confidence`; a bound can ask for the value alone by `decide_on: value`.
    `slices` holds the rule against each of these groups of prompts (`reduce: worst`) or their mean.
    """

    id: str
    metric: str
    min: float | None = None
    max: float | None = None
    champion_margin: Annotated[float, Field(ge=0.0)] | None = None
    better: Literal["higher", "lower"] = "higher"
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    decide_on: Literal["interval", "value"] = "interval"
    slices: tuple[str, ...] | None = Field(default=None, min_length=1)
    reduce: Literal["worst", "mean"] = "worst"
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
    on_inconclusive: Literal["needs-approval", "reject"]
    most_prompts_per_task: Positive
    most_images_per_prompt: Annotated[int, Field(ge=2)]
    resamples: Annotated[int, Field(ge=100)]
    quality: QualityGate
    serving: tuple[Rule, ...] = Field(min_length=1)


class RegistryParams(Section):
    """Where versions go, how far a run promotes on its own, which channels there are, and which of them ask for a
    person's approval."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    promote_to: Literal["staging", "none"]
    channels: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], ...] = (
        "staging",
        "production",
    )
    approval: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], ...]

    @model_validator(mode="after")
    def _channels_exist(self) -> RegistryParams:
        """A misspelt channel would be one that nobody guards."""
        unknown = [name for name in ("staging", *self.approval) if name not in self.channels]
        if unknown:
            raise ValueError(f"registry.channels lacks `{unknown[0]}`")
        return self


class ServingParams(Section):
    """How the serving gate measures the exported package."""

    latency_batch: Positive
    latency_repeats: Positive
    rescore_prompts_per_task: Positive


class RunParams(Section):
    """How a run treats its stages."""

    stage_timeout_minutes: Positive
    stage_retries: Annotated[int, Field(ge=0)]
    # Processes that prepare images (0: one a core), and that encode (one a GPU is right).
    workers: Annotated[int, Field(ge=0)] = 0
    encode_workers: Positive = 1
    # A Dask scheduler whose workers do both in place of processes of this machine, like tcp://10.0.0.1:8786.
    dask: str | None = None
    # Or a Ray cluster whose nodes do, like 10.0.0.1:6379.
    ray: str | None = None

    @model_validator(mode="after")
    def _one_engine(self) -> RunParams:
        if self.dask is not None and self.ray is not None:
            raise ValueError("shards go to Dask or to Ray: set one of dask and ray to null")
        return self


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

    @property
    def other_sizes(self) -> tuple[ImageSize, ...]:
        """Where the package draws besides the square of `data.resolution`: there too it is evaluated and judged."""
        return tuple(size for size in dict.fromkeys(self.export.sizes) if size != self.data.square)

    def larger_evaluation(self) -> EvaluateParams | None:
        """`evaluate` with the prompts and images of the gates' second look; None if those are no more."""
        evaluate, gates = self.evaluate, self.gates
        larger = evaluate.model_copy(
            update={
                "prompts_per_task": max(evaluate.prompts_per_task, gates.most_prompts_per_task),
                "images_per_prompt": max(evaluate.images_per_prompt, gates.most_images_per_prompt),
            }
        )
        return None if larger == evaluate else larger


def load_params(path: Path) -> Params:
    """Read and validate a params file.

    Args:
        path: the YAML file.

    Raises:
        TwinflowError: the file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        document = read_yaml(path)
    except FileNotFoundError:
        raise TwinflowError(
            "The parameter file is missing.", where=str(path), fix="Run from the repository's root."
        ) from None
    except UnreadableYamlError as error:
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
    if first["type"] == "value_error":
        return TwinflowError(
            f"`{key}`: {first['ctx']['error']}{others}.", where=f"{path}: {key}", fix="Change one of them."
        )
    return TwinflowError(
        f"`{key}` cannot be {reprlib.repr(first['input'])}: {first['msg']}{others}.",
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
