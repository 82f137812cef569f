"""All graphs and configurations of a package: the split folders that optimum-onnx reads, ours at the root.

    model_index.json  scheduler/  tokenizer/ tokenizer_2/
    transformer/ vae_decoder/ text_encoder/ text_encoder_2/    model.onnx, model.onnx_data, config.json
    text.onnx                                                  token ids -> prompt embeddings
    nfe1.onnx, nfe2.onnx ...                                   noises + prompt embeddings -> images
    nfe1_1344x768.onnx ...                                     the same at other sizes

The graphs at the root point into the split folders' weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx_ir as ir
from tokenizers.models import BPE

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.export.compose import generator_model
from twinflow_core.export.cut import cut
from twinflow_core.export.denoiser import DenoiserGraphs
from twinflow_core.export.graphs import IMAGES, STOCK
from twinflow_core.export.padded_tokenizer import PaddedTokenizer
from twinflow_core.export.pieces import NAMES, Pieces, traced_decoder
from twinflow_core.export.precision import Precision, in_precision
from twinflow_core.export.sizes import drawing_at
from twinflow_core.export.text import encoder_names, tokenizers
from twinflow_core.export.text_precision import text_in_precision
from twinflow_core.export.weights import SharedWeights
from twinflow_core.image_size import ImageSize
from twinflow_core.runtime.package import generator_graph
from twinflow_core.sampling.few_step import few_step_times

# What diffusers and transformers add to saved configurations that tells where this machine loaded from.
MACHINE_KEYS = ("_name_or_path", "is_local", "local_files_only", "name_or_path")


TRANSFORMER = "transformer/model.onnx"
DECODER = "vae_decoder/model.onnx"


def graph_count(steps: Sequence[int], sizes: Sequence[ImageSize] = ()) -> int:
    """How many steps of work `trace` and `write_graphs` report together."""
    return len(NAMES) + len(steps) * (1 + len(sizes))


def write_graphs(
    package: Path,
    backbone: Backbone,
    pieces: Pieces,
    steps: Sequence[int],
    precision: Precision,
    done: Callable[[int, str], None],
    sizes: Sequence[ImageSize] = (),
    text_precision: Precision = "fp32",
) -> None:
    """Cut and compose the graphs, save all; those whose weights others use first.

    Args:
        package: the folder to write into.
        backbone: the model.
        pieces: its parts, traced at its own size.
        steps: the evaluations k for which a generator is made.
        precision: of the generators' denoiser; the split folders' transformer and VAE stay in float32.
        done: told how many steps of work are finished, those of `trace` included, and the last one's name.
        sizes: others than the backbone's at which generators are made; they point into the same weights.
        text_precision: of the text graph and of the text encoders' own.
    """
    weights = SharedWeights(package)
    weights.save(pieces.denoiser.at_any_time(), TRANSFORMER)
    marks = {f"{STOCK}latent_sample": "latent_sample"}, {f"{STOCK}sample": "sample"}
    weights.save(cut(pieces.decoder, *marks), DECODER)
    for path, model in pieces.text.items():
        # The same weights give the same bytes in every graph, and so are stored once.
        weights.save(text_in_precision(model, text_precision), path)
    finished = len(NAMES)
    for k, generator in _generators(pieces.denoiser, pieces.decoder, steps, precision):
        finished += 1
        weights.save(generator, generator_graph(k))
        done(finished, generator_graph(k))
    for size in sizes:
        with drawing_at(backbone, size):
            denoiser, decoder = DenoiserGraphs(backbone, pieces.opset), traced_decoder(backbone, pieces.opset)
            for k, generator in _generators(denoiser, decoder, steps, precision):
                finished += 1
                weights.save(generator, generator_graph(k, str(size)))
                done(finished, generator_graph(k, str(size)))


def _generators(
    denoiser: DenoiserGraphs, traced: ir.Model, steps: Sequence[int], precision: Precision
) -> Iterator[tuple[int, ir.Model]]:
    """For each number of evaluations the graph from noises to images."""
    velocity = in_precision(denoiser.at_given_time(), precision)
    decoder = cut(traced, {}, {IMAGES: IMAGES})
    for k in steps:
        times = few_step_times(k)
        yield k, generator_model(velocity, decoder, denoiser.time_values(times), times, denoiser.opset)


def write_configurations(package: Path, backbone: Backbone) -> None:
    """model_index.json, each part's configuration, the scheduler, tokenizers that pad and cut."""
    pipeline = backbone.pipeline
    pipeline.save_config(package)
    pipeline.scheduler.save_pretrained(package / "scheduler")
    pipeline.transformer.save_config(package / "transformer")
    pipeline.vae.save_config(package / "vae_decoder")
    for name, tokenizer in tokenizers(backbone).items():
        _write_tokenizer(package / name, tokenizer)
    for name in encoder_names(backbone):
        getattr(pipeline, name).config.save_pretrained(package / name)
    for path in sorted(package.rglob("*.json")):
        _forget_machine(path)


def _write_tokenizer(folder: Path, tokenizer: PaddedTokenizer) -> None:
    """The tokenizer's own files, with the padding and truncation that the pipeline asks for at every call."""
    tokenizer.stock.save_pretrained(folder)
    backend = tokenizer.backend()
    backend.save(str(folder / "tokenizer.json"))
    if isinstance(backend.model, BPE):
        # vocab.json and merges.txt, which CLIP's tokenizer in the transformers that optimum-onnx pins still reads.
        backend.model.save(str(folder))


def _forget_machine(path: Path) -> None:
    """Rewrite a configuration without the keys that differ from one machine to the next."""
    document = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in document.items() if key not in MACHINE_KEYS}
    if kept != document:
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
