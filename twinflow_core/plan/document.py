"""A plan as words and as a JSON document; what in it is computed and what is assumed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from twinflow_core.plan.duration import UTILISATION
from twinflow_core.plan.encode_needs import EncodeNeeds
from twinflow_core.plan.gpus import Gpu
from twinflow_core.plan.memory import CONTEXT, UNUSABLE
from twinflow_core.plan.plan import Outlook, Plan
from twinflow_core.plan.search import changes
from twinflow_core.plan.setting import Setting

COMPUTED = (
    "parameters, bytes and operations, by running the model's own layers and the objective on tensors without data, "
    "under CUDA's rules for types and attention kernels."
)
ASSUMED = (
    f"{UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} of the GPU's peak for times; {CONTEXT / 2**30:g} GiB for CUDA and "
    f"{UNUSABLE:.0%} of activations and gradients for its allocator as `other`; every prompt at its longest, "
    "and of several sizes every image at the largest."
)


def setting_words(setting: Setting) -> str:
    """The setting in the words of params.yaml, what matters first."""
    trained = f"LoRA rank {setting.lora_rank}" if setting.lora_rank else "all weights"
    words = [
        f"{setting.processes} GPU(s)",
        trained,
        f"batch {setting.batch_size}",
        f"accumulation {setting.accumulation}",
        f"weights {setting.weights}",
        setting.optimizer,
    ]
    if setting.checkpointing:
        words.append("gradient checkpointing")
    if setting.quantized_base != "none":
        words.append(f"base {setting.quantized_base}")
    return ", ".join(words)


def plan_document(plan: Plan, encode: EncodeNeeds | None = None) -> dict[str, Any]:
    """The plan for programs; sizes in bytes, ranges from slow to fast. `encode` is null where it is not known."""
    return {
        "model": {
            "name": plan.model.name,
            "class": plan.model.class_name,
            "source": plan.model.source,
            "parameters": plan.parameters.transformer,
        },
        "gpu": asdict(plan.gpu),
        "size": str(plan.size),
        "text_tokens": plan.tokens,
        "asked": _outlook(plan.asked, plan.asked.setting),
        "cheapest": plan.cheapest and _outlook(plan.cheapest, plan.asked.setting),
        "more_gpus": plan.more_gpus and _outlook(plan.more_gpus, plan.asked.setting),
        "encode": encode and _encode(encode, plan.gpu),
        "computed": COMPUTED,
        "assumed": ASSUMED,
        "measured": None,
    }


def _encode(needs: EncodeNeeds, gpu: Gpu) -> dict[str, Any]:
    return {
        "batch_size": needs.batch_size,
        "parameters": dict(needs.parameters),
        "weights": needs.weights,
        "activations": needs.activations,
        "highest_in": needs.largest,
        "total": needs.total,
        "cpu": needs.host,
        "fits": needs.total <= gpu.memory,
        "largest_batch_size": needs.largest_batch(gpu.memory),
    }


def _outlook(outlook: Outlook, asked: Setting) -> dict[str, Any]:
    memory = outlook.memory
    return {
        "fits": outlook.fits,
        "setting": asdict(outlook.setting),
        "changes": changes(asked, outlook.setting),
        "trainable": outlook.trainable,
        "memory": {
            **memory.parts(),
            "total": memory.total,
            "highest_in": memory.phase,
            "cpu": memory.host,
        },
        **asdict(outlook.duration),
    }
