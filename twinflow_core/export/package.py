"""The whole package: graphs, configurations, parity, manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.export.layout import graph_count, write_configurations, write_graphs
from twinflow_core.export.parity import measure_parity
from twinflow_core.export.pieces import trace
from twinflow_core.export.precision import Precision
from twinflow_core.export.provenance import provenance
from twinflow_core.export.sizes import drawing_at, other_sizes
from twinflow_core.export.text import tokenizers
from twinflow_core.image_size import ImageSize
from twinflow_core.progress import Reporter
from twinflow_core.runtime.loaded_package import LoadedPackage
from twinflow_core.runtime.package import (
    FORMAT_VERSION,
    MANIFEST,
    TEXT_GRAPH,
    FileRecord,
    GraphSpec,
    PackageManifest,
    SizeSpec,
    TensorSpec,
    file_sha256,
    generator_graph,
)
from twinflow_core.sampling.few_step import few_step_times

PARITY = "parity.json"
SAMPLER = "few steps: x_1 = z_1, x_t = t z + (1 - t) x, x = x_t - t F(x_t, t, 0); fresh noise at every time"
NOISE = "NumPy Philox keyed by SHA-256 of '<seed>/<image>', standard normal float32 (twinflow_core.noise)"
# Of images in fewer bits against torch in float32, in dB.
LOWEST_PSNR = 35


def build_package(
    backbone: Backbone,
    package: Path,
    steps: Sequence[int],
    opset: int,
    precision: Precision = "fp32",
    sizes: Sequence[ImageSize] = (),
    text_precision: Precision = "fp32",
) -> None:
    """Fill an empty folder with a package. The same model gives the same bytes.

    Args:
        backbone: the fine-tuned model, in float32 on the CPU.
        package: an existing, empty folder.
        steps: the numbers of evaluations to make generators for.
        opset: of every graph.
        precision: of the generators' denoiser.
        sizes: at which images are drawn besides the backbone's own, a square.
        text_precision: of the text encoders.

    Raises:
        TwinflowError: the model has a part that cannot be exported, does not make images of one of the sizes, or
            loses too much in these precisions.
    """
    sizes = other_sizes(backbone, sizes)
    graphs = graph_count(steps, sizes)
    # Two more than the graphs: the configurations with the manifest, and parity.
    with Reporter("export", graphs + 2) as reporter:
        pieces = trace(backbone, opset, reporter.update)
        write_graphs(package, backbone, pieces, steps, precision, reporter.update, sizes, text_precision)
        write_configurations(package, backbone)
        reporter.update(graphs + 1, "parity")
        describe_and_measure(backbone, package, steps, opset, precision, sizes, text_precision)
        reporter.update(graphs + 2)


def describe_and_measure(
    backbone: Backbone,
    package: Path,
    steps: Sequence[int],
    opset: int,
    precision: Precision = "fp32",
    sizes: Sequence[ImageSize] = (),
    text_precision: Precision = "fp32",
) -> None:
    """Write manifest.json and parity.json of a package's present graphs.

    Raises:
        TwinflowError: it loses too much in these precisions.
    """
    manifest = describe_package(backbone, package, steps, opset, precision, sizes, text_precision)
    manifest.write(package)
    # One thread, so that the last digits do not depend on how the machine splits the work.
    parity = measure_parity(backbone, LoadedPackage.from_folder(package, "cpu", threads=1))
    _require_fidelity(parity, precision, text_precision)
    path = package / PARITY
    path.write_text(json.dumps(parity, indent=2) + "\n", encoding="utf-8")
    replace(manifest, files={**manifest.files, PARITY: _file_record(path)}).write(package)


def describe_package(
    backbone: Backbone,
    package: Path,
    steps: Sequence[int],
    opset: int,
    precision: Precision,
    sizes: Sequence[ImageSize] = (),
    text_precision: Precision = "fp32",
) -> PackageManifest:
    """The manifest of a package's present files."""
    files = [path for path in package.rglob("*") if path.is_file() and path != package / MANIFEST]
    return PackageManifest(
        format=FORMAT_VERSION,
        family=backbone.family,
        opset=opset,
        resolution=backbone.width,
        latent_shape=backbone.latent_shape,
        times={str(k): tuple(few_step_times(k)) for k in steps},
        generators={str(k): _graph_spec(package, generator_graph(k)) for k in steps},
        text=_graph_spec(package, TEXT_GRAPH),
        tokenizers=tuple(
            tokenizer.spec(f"{name}/tokenizer.json", number)
            for number, (name, tokenizer) in enumerate(tokenizers(backbone).items())
        ),
        sampler=SAMPLER,
        noise=NOISE,
        provenance=provenance(backbone),
        precision=precision,
        text_precision=text_precision,
        files={path.relative_to(package).as_posix(): _file_record(path) for path in sorted(files)},
        sizes={str(size): _size_spec(backbone, package, steps, size) for size in sizes},
    )


def _file_record(path: Path) -> FileRecord:
    return FileRecord(file_sha256(path), path.stat().st_size)


def _require_fidelity(
    parity: dict[str, float | int], precision: Precision, text_precision: Precision = "fp32"
) -> None:
    """Refuse to package what fewer bits have spoilt; what float32 gives is for the gate to judge."""
    fewer_bits = [
        f"{name} = {each}"
        for name, each in (("precision", precision), ("text_precision", text_precision))
        if each != "fp32"
    ]
    if fewer_bits and (not parity["finite"] or parity["psnr"] < LOWEST_PSNR):
        raise TwinflowError(
            f"In fewer bits the package draws too differently from torch: PSNR {parity['psnr']} dB, "
            f"where {LOWEST_PSNR} are needed.",
            where=f"params.yaml: export: {', '.join(fewer_bits)}",
            fix="Choose a precision with more bits; fp32 loses nothing.",
        )


def _size_spec(backbone: Backbone, package: Path, steps: Sequence[int], size: ImageSize) -> SizeSpec:
    with drawing_at(backbone, size):
        generators = {str(k): _graph_spec(package, generator_graph(k, str(size))) for k in steps}
        return SizeSpec(backbone.latent_shape, generators)


def _graph_spec(package: Path, file: str) -> GraphSpec:
    graph = onnx.load(package / file, load_external_data=False).graph
    return GraphSpec(file, _specs(graph.input), _specs(graph.output))


def _specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            value.name,
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
            tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
        )
        for value in values
    )
