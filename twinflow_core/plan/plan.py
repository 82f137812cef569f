"""The plan of a training: parameters, memory, whether it fits, what would, time and evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.image_size import ImageSize
from twinflow_core.plan.duration import Duration, plan_duration
from twinflow_core.plan.families import FAMILIES
from twinflow_core.plan.gpus import Gpu
from twinflow_core.plan.memory import Memory, plan_memory, trainable_parameters
from twinflow_core.plan.named_models import PlannedModel
from twinflow_core.plan.parameters import Parameters, count_parameters
from twinflow_core.plan.search import candidates, on_more_gpus
from twinflow_core.plan.setting import Setting, refusal
from twinflow_core.plan.trace import Calls, Variant, trace_calls


@dataclass(frozen=True)
class Outlook:
    """One setting, what it needs and how long it takes."""

    setting: Setting
    trainable: int
    memory: Memory
    duration: Duration
    fits: bool

    @property
    def gpu_hours(self) -> float:
        """At the slow end."""
        return self.setting.processes * self.duration.hours[0]


@dataclass(frozen=True)
class Plan:
    """What is planned for, and what came out.

    Attributes:
        model: the transformer.
        parameters: of it.
        gpu: of each process.
        size: of the images.
        tokens: text tokens a row.
        asked: the setting that was asked.
        cheapest: the setting to take on so many GPUs; None if nothing fits.
        more_gpus: the fewest GPUs on which the same numbers fit, where `cheapest` is None or changes numbers.
    """

    model: PlannedModel
    parameters: Parameters
    gpu: Gpu
    size: ImageSize
    tokens: int
    asked: Outlook
    cheapest: Outlook | None
    more_gpus: Outlook | None


def make_plan(
    model: PlannedModel, options: FinetuneParams, setting: Setting, gpu: Gpu, size: ImageSize
) -> Plan:
    """Plan a training.

    Args:
        model: what is trained.
        options: the finetune section.
        setting: how, as asked.
        gpu: on what.
        size: of the images.

    Raises:
        TwinflowError: the model cannot make images of this size, or the training refuses the setting.
    """
    family = FAMILIES[model.class_name]
    if any(side % (2 * family.downscale) for side in size):
        raise TwinflowError(
            f"{model.name} makes no images of {size} pixels.",
            where="--resolution; params.yaml: data.resolution, data.buckets",
            fix=f"Give multiples of {2 * family.downscale}.",
        )
    if refused := refusal(options, setting):
        raise TwinflowError(
            f"The training would not start: {refused}.",
            where=f"params.yaml: finetune, on {setting.processes} process(es)",
            fix="Change finetune in params.yaml as said, or --processes.",
        )
    parameters = count_parameters(model)
    height, width = size.height // family.downscale, size.width // family.downscale
    config = json.dumps(model.config, sort_keys=True)

    def outlook(each: Setting) -> Outlook:
        calls = _traced(model.class_name, config, each.variant, height, width, family.tokens)
        memory = plan_memory(options, each, parameters, calls)
        duration = plan_duration(options, each, parameters, calls, gpu)
        trained = trainable_parameters(each, parameters)
        return Outlook(each, trained, memory, duration, memory.total <= gpu.memory)

    def cheapest_of(groups: Iterable[list[Setting]]) -> tuple[int, Outlook] | None:
        for number, group in enumerate(groups):
            offered = (each for each in group if not refusal(options, each))
            fitting = [found for found in map(outlook, offered) if found.fits]
            if fitting:
                return number, min(fitting, key=lambda found: found.gpu_hours)
        return None

    asked = outlook(setting)
    best = cheapest_of(candidates(setting))
    more = None
    if best is None or best[0] > 0:
        more = cheapest_of(on_more_gpus(setting))
    return Plan(
        model=model,
        parameters=parameters,
        gpu=gpu,
        size=size,
        tokens=family.tokens,
        asked=asked,
        cheapest=asked if asked.fits else best and best[1],
        more_gpus=more and more[1],
    )


@cache
def _traced(class_name: str, config: str, variant: Variant, height: int, width: int, tokens: int) -> Calls:
    return trace_calls(class_name, json.loads(config), variant, height, width, tokens)
