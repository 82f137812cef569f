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
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from tokenizers import Tokenizer

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.errors import TwinflowError
from twinflow_core.export.compose import denoiser_model, generator_model, text_model
from twinflow_core.export.graphs import GivenTimeTransformer, SplitDecoder, SplitTextEncoder, TimeEmbedding
from twinflow_core.export.onnx_model import EXAMPLE_BATCH, export_model
from twinflow_core.export.precision import Precision, in_precision
from twinflow_core.export.weights import SharedWeights
from twinflow_core.runtime.package import TEXT_GRAPH, generator_graph
from twinflow_core.sampling.few_step import few_step_times

# What diffusers and transformers add to saved configurations that tells where this machine loaded from.
MACHINE_KEYS = ("_name_or_path", "is_local", "local_files_only", "name_or_path")


TRANSFORMER = "transformer/model.onnx"
DECODER = "vae_decoder/model.onnx"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
# The pieces that are traced; the generators and the text graph are composed of them.
PIECES = 5


def graph_count(steps: Sequence[int]) -> int:
    """How many steps of work `write_graphs` reports."""
    return PIECES + len(steps)


def write_graphs(
    package: Path,
    backbone: Backbone,
    steps: Sequence[int],
    opset: int,
    precision: Precision,
    done: Callable[[int, str], None],
) -> None:
    """Trace the parts, compose the graphs, save all; those whose weights others use first.

    Args:
        package: the folder to write into.
        backbone: the model; without T5.
        steps: the evaluations k for which a generator is made.
        opset: of every graph.
        precision: of the generators' denoiser; the split folders stay in float32.
        done: told how many steps of work are finished, and the last one's name.

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
    weights = SharedWeights(package)
    conditioning = backbone.encode_prompts([""] * EXAMPLE_BATCH)
    time = TimeEmbedding(pipeline.transformer.time_text_embed)
    velocity = _trace_velocity(backbone, conditioning, time, opset)
    embedder = export_model(time, {"timestep": torch.full((EXAMPLE_BATCH,), 1000.0)}, ["embedding"], opset)
    weights.save(denoiser_model(embedder, velocity, opset), TRANSFORMER)
    done(2, TRANSFORMER)
    latents = {"latent_sample": torch.randn(EXAMPLE_BATCH, *backbone.latent_shape)}
    decoder = export_model(SplitDecoder(pipeline.vae), latents, ["sample"], opset)
    weights.save(decoder, DECODER)
    done(3, DECODER)
    encoders = [_trace_text_encoder(pipeline, name, opset) for name in TEXT_ENCODERS]
    for name, encoder in zip(TEXT_ENCODERS, encoders, strict=True):
        weights.save(encoder, f"{name}/model.onnx")
    _, context, width = conditioning.prompt_embeds.shape
    weights.save(text_model(encoders, context, width, opset), TEXT_GRAPH)
    done(PIECES, TEXT_GRAPH)
    scale, shift = float(pipeline.vae.config.scaling_factor), float(pipeline.vae.config.shift_factor or 0.0)
    served = in_precision(velocity, precision)
    for number, k in enumerate(steps, start=1):
        times = few_step_times(k)
        constants = [embedding.numpy() for embedding in time.at(times)]
        generator = generator_model(served, decoder, constants, times, scale, shift, opset)
        weights.save(generator, generator_graph(k))
        done(PIECES + number, generator_graph(k))


def _trace_velocity(
    backbone: Backbone, conditioning: Conditioning, time: TimeEmbedding, opset: int
) -> ir.Model:
    (embedding,) = time.at([1.0])
    inputs = {
        "hidden_states": torch.randn(EXAMPLE_BATCH, *backbone.latent_shape),
        "time_embedding": embedding.repeat(EXAMPLE_BATCH, 1),
        **{name: torch.randn_like(part) for name, part in conditioning.tensors().items()},
    }
    return export_model(GivenTimeTransformer(backbone.pipeline.transformer), inputs, ["velocity"], opset)


def _trace_text_encoder(pipeline: Any, name: str, opset: int) -> ir.Model:
    encoder = getattr(pipeline, name)
    ids = torch.zeros(EXAMPLE_BATCH, pipeline.tokenizer_max_length, dtype=torch.int64)
    states = [f"hidden_states.{layer}" for layer in range(encoder.config.num_hidden_layers + 1)]
    outputs = ["text_embeds", "last_hidden_state", *states]
    return export_model(SplitTextEncoder(encoder), {"input_ids": ids}, outputs, opset)


def write_configurations(package: Path, backbone: Backbone) -> None:
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
