"""All graphs and configurations of a package: the split folders that optimum-onnx reads, ours at the root.

    model_index.json  scheduler/  tokenizer/ tokenizer_2/
    transformer/ vae_decoder/ text_encoder/ text_encoder_2/    model.onnx, model.onnx_data, config.json
    text.onnx                                                  token ids -> prompt embeddings
    nfe1.onnx, nfe2.onnx ...                                   noises + prompt embeddings -> images

The graphs at the root point into the split folders' weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from twinflow_core.backbones.sd3 import Sd3Backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.export.graphs import (
    FewStepGenerator,
    SplitDecoder,
    SplitTextEncoder,
    SplitTransformer,
    TextEncoders,
)
from twinflow_core.export.onnx_model import EXAMPLE_BATCH, export_model
from twinflow_core.export.weights import SharedWeights
from twinflow_core.runtime.package import TEXT_GRAPH, generator_graph

# What diffusers and transformers add to saved configurations that tells where this machine loaded from.
MACHINE_KEYS = ("_name_or_path", "is_local", "local_files_only", "name_or_path")


@dataclass(frozen=True)
class GraphPlan:
    """One graph to export: its file, module, example inputs by name, outputs' names, and odd batch axes."""

    path: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]
    batch_axes: dict[str, int]


def plan_graphs(backbone: Sd3Backbone, steps: Sequence[int]) -> list[GraphPlan]:
    """All graphs of a package, those whose weights others use first.

    Args:
        backbone: the model; without T5.
        steps: the evaluations k for which a generator is made.

    Raises:
        TwinflowError: the pipeline has a T5 text encoder, which has no graph yet.
    """
    pipeline = backbone.pipeline
    if pipeline.text_encoder_3 is not None:
        raise TwinflowError(
            "The model's T5 text encoder cannot be exported yet.",
            where="text_encoder_3",
            fix="Save the base model with text_encoder_3=None and tokenizer_3=None.",
        )
    conditioning = backbone.encode_prompts([""] * EXAMPLE_BATCH)
    embeds, pooled = torch.randn_like(conditioning.prompt_embeds), torch.randn_like(conditioning.pooled)
    latents = torch.randn(EXAMPLE_BATCH, *backbone.latent_shape)
    ids = torch.zeros(EXAMPLE_BATCH, pipeline.tokenizer_max_length, dtype=torch.int64)
    split = {
        "hidden_states": latents,
        "encoder_hidden_states": embeds,
        "pooled_projections": pooled,
        "timestep": torch.full((EXAMPLE_BATCH,), 1000.0),
    }
    plans = [
        GraphPlan(
            "transformer/model.onnx", SplitTransformer(pipeline.transformer), split, ["out_hidden_states"], {}
        ),
        GraphPlan(
            "vae_decoder/model.onnx", SplitDecoder(pipeline.vae), {"latent_sample": latents}, ["sample"], {}
        ),
    ]
    for name in ("text_encoder", "text_encoder_2"):
        encoder = getattr(pipeline, name)
        states = [f"hidden_states.{layer}" for layer in range(encoder.config.num_hidden_layers + 1)]
        outputs = ["text_embeds", "last_hidden_state", *states]
        plans.append(
            GraphPlan(f"{name}/model.onnx", SplitTextEncoder(encoder), {"input_ids": ids}, outputs, {})
        )
    texts = TextEncoders(backbone, embeds.shape[1])
    embeddings = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    plans.append(
        GraphPlan(TEXT_GRAPH, texts, {"input_ids": ids, "input_ids_2": ids.clone()}, list(embeddings), {})
    )
    for k in steps:
        noises = torch.randn(k, EXAMPLE_BATCH, *backbone.latent_shape)
        generator = FewStepGenerator(backbone, k)
        inputs = {"noises": noises, **embeddings}
        plans.append(GraphPlan(generator_graph(k), generator, inputs, ["images"], {"noises": 1}))
    return plans


def write_graphs(package: Path, plans: Sequence[GraphPlan], opset: int, done: Callable[[int], None]) -> None:
    """Export and save the graphs one after the other, so that only one is in memory.

    Args:
        package: the folder to write into.
        plans: from `plan_graphs`.
        opset: of every graph.
        done: told how many graphs are finished.
    """
    weights = SharedWeights(package)
    for finished, plan in enumerate(plans, start=1):
        model = export_model(plan.module, plan.inputs, plan.outputs, opset, plan.batch_axes)
        weights.save(model, plan.path)
        done(finished)


def write_configurations(package: Path, backbone: Sd3Backbone) -> None:
    """model_index.json, each part's configuration, the scheduler, tokenizers that pad and cut."""
    pipeline = backbone.pipeline
    pipeline.save_config(package)
    pipeline.scheduler.save_pretrained(package / "scheduler")
    pipeline.transformer.save_config(package / "transformer")
    pipeline.vae.save_config(package / "vae_decoder")
    for suffix in ("", "_2"):
        getattr(pipeline, f"text_encoder{suffix}").config.save_pretrained(package / f"text_encoder{suffix}")
        _write_tokenizer(
            package / f"tokenizer{suffix}",
            getattr(pipeline, f"tokenizer{suffix}"),
            pipeline.tokenizer_max_length,
        )
    for path in sorted(package.rglob("*.json")):
        _forget_machine(path)


def _write_tokenizer(folder: Path, tokenizer: Any, length: int) -> None:
    """The tokenizer's own files, with the padding and truncation that the pipeline asks for at every call."""
    tokenizer.save_pretrained(folder)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(length)
    backend.enable_padding(
        length=length,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        pad_type_id=tokenizer.pad_token_type_id,
    )
    backend.save(str(folder / "tokenizer.json"))


def _forget_machine(path: Path) -> None:
    """Rewrite a configuration without the keys that differ from one machine to the next."""
    document = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in document.items() if key not in MACHINE_KEYS}
    if kept != document:
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
