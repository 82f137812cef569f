"""What the encode stage needs: the text encoders and the VAE run without data, in float32, as the stage runs them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinflow_core.image_size import ImageSize
from twinflow_core.plan.cuda_rules import CudaRules
from twinflow_core.plan.families import FAMILIES, META
from twinflow_core.plan.memory import CONTEXT, UNUSABLE
from twinflow_core.plan.named_models import Part, PlannedModel
from twinflow_core.plan.storage_ledger import StorageLedger

BYTES_A_VALUE = 4
# Tokens of a prompt's template or instruction, which the encoder reads and the transformer does not.
TEMPLATE_TOKENS = {"qwen": 34, "sana": 300}
# Of SD3's longest prompt 77 tokens are CLIP's.
CLIP_TOKENS = 77


@dataclass(frozen=True)
class Run:
    """One call of a part: bytes at one row beside its weights, and what every further row adds."""

    one: int
    more: int

    def at(self, rows: int) -> int:
        """Bytes of a call with so many rows."""
        return self.one + (rows - 1) * self.more


@dataclass(frozen=True)
class EncodeNeeds:
    """What each process of the encode stage needs.

    Attributes:
        batch_size: rows that it encodes at once.
        parameters: of each part by name.
        runs: the call of each part by name.
        host: bytes of the machine's memory while it loads the pipeline, transformer included.
    """

    batch_size: int
    parameters: Mapping[str, int]
    runs: Mapping[str, Run]
    host: int

    @property
    def weights(self) -> int:
        """Bytes on the GPU that stay: all parts are there at once."""
        return BYTES_A_VALUE * sum(self.parameters.values())

    @property
    def activations(self) -> int:
        """Bytes of the largest call: one part runs at a time."""
        return max(run.at(self.batch_size) for run in self.runs.values())

    @property
    def largest(self) -> str:
        """The part whose call that is."""
        return max(self.runs, key=lambda name: self.runs[name].at(self.batch_size))

    @property
    def total(self) -> int:
        """Bytes on the GPU; what is assumed is assumed as for a training."""
        return self.weights + int((1 + UNUSABLE) * self.activations) + CONTEXT

    def largest_batch(self, memory: int) -> int:
        """The most rows at once that fit into so many bytes; 0 if not one does."""
        room = (memory - self.weights - CONTEXT) / (1 + UNUSABLE)
        return max(0, min(1 + int((room - run.one) // run.more) for run in self.runs.values()))


def encode_needs(
    model: PlannedModel, transformer: int, batch_size: int, size: ImageSize
) -> EncodeNeeds | None:
    """Build each part on the meta device, count it, and run it at one row and at two.

    Args:
        model: what is trained.
        transformer: its transformer's parameters.
        batch_size: rows at once.
        size: of the images.

    Returns:
        None where the model's other parts are not known.
    """
    if not model.parts:
        return None
    family = FAMILIES[model.class_name]
    tokens = family.tokens + TEMPLATE_TOKENS.get(family.name, 0)
    if family.name == "sd3":
        tokens -= CLIP_TOKENS
    parameters, runs = {}, {}
    for part in model.parts:
        network = _build(part)
        parameters[part.name] = sum(each.numel() for each in network.parameters())
        one, two = (_peak(network, rows, tokens, size) for rows in (1, 2))
        runs[part.name] = Run(one, two - one)
    host = BYTES_A_VALUE * (transformer + sum(parameters.values()))
    return EncodeNeeds(batch_size, parameters, runs, host)


def _build(part: Part) -> nn.Module:
    made_by: Any = getattr(importlib.import_module(part.library), part.class_name)
    with META:
        if part.library == "diffusers":
            return made_by(**part.config).eval()
        return made_by(made_by.config_class.from_dict(dict(part.config))).eval()


def _peak(network: Any, rows: int, tokens: int, size: ImageSize) -> int:
    ledger = StorageLedger([*network.parameters(), *network.buffers()])
    with ledger, CudaRules(autocast=False), torch.no_grad():
        if hasattr(network, "encode"):
            images = torch.empty(rows, 3, size.height, size.width, device=META)
            # Qwen-Image's VAE takes videos, of which an image is a frame.
            video = "Qwen" in type(network).__name__
            network.encode(images.unsqueeze(2) if video else images)
        else:
            network(**_prompts(network, rows, tokens))
    return ledger.peak


def _prompts(network: Any, rows: int, tokens: int) -> dict[str, Any]:
    """What the families' pipelines pass to their text encoders, at the longest prompt."""
    kind = type(network).__name__
    if kind.startswith("CLIP"):
        ids = _numbers(rows, network.config.max_position_embeddings)
        return {"input_ids": ids, "output_hidden_states": True}
    if kind.startswith("T5"):
        return {"input_ids": _numbers(rows, tokens)}
    # Without data a language model cannot make its own mask and positions.
    return {
        "input_ids": _numbers(rows, tokens),
        "attention_mask": torch.empty(rows, 1, tokens, tokens, dtype=torch.bool, device=META),
        "position_ids": _numbers(rows, tokens),
        "output_hidden_states": not kind.startswith("Gemma"),
    }


def _numbers(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.long, device=META)
