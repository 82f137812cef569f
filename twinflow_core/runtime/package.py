"""What a package says of itself, and whether its files are the ones it was made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.wording import AS_IT_IS, Wording

MANIFEST = "manifest.json"
FORMAT_VERSION = 3
TEXT_GRAPH = "text.onnx"
# The input of every generator that holds the noises of all evaluations; the others are conditioning.
NOISES = "noises"
# What conditioning is called, as in `backbones.conditioning`, which this side cannot import.
EMBEDS, MASK = "prompt_embeds", "prompt_mask"
# Of format 1, which said less and these two things more.
DROPPED = ("vae", "default_negative")
GET_AGAIN = "Fetch the package from the registry again, or redo the export stage."


def generator_graph(steps: int, size: str = "") -> str:
    """The file that makes images in `steps` evaluations, of the package's own size or of another."""
    return f"nfe{steps}_{size}.onnx" if size else f"nfe{steps}.onnx"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph: name, ONNX Runtime's type, shape with names for dynamic axes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph of the package: its file, inputs and outputs."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer of the package.

    Attributes:
        file: its tokenizer.json, which cuts and fills up every text to one length.
        ids: the text graph's input that takes the token ids.
        mask: the input that takes which tokens are the text's, or None if the graph does not ask.
        wording: what is read in place of a prompt.
    """

    file: str
    ids: str
    mask: str | None = None
    wording: Wording = AS_IT_IS


@dataclass(frozen=True)
class SizeSpec:
    """What draws images of one size.

    Attributes:
        latent_shape: (C, h, w) of one image's noise.
        generators: the graphs from noise to images, by NFE (as text).
    """

    latent_shape: tuple[int, int, int]
    generators: dict[str, GraphSpec]

    @property
    def pixels(self) -> tuple[int, int]:
        """(H, W) of the images."""
        height, width = next(iter(self.generators.values())).outputs[0].shape[2:]
        return (int(height), int(width))


@dataclass(frozen=True)
class FileRecord:
    """A file's SHA-256 in hexadecimal and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class PackageManifest:
    """manifest.json.

    Attributes:
        format: version of this document.
        family: the model family, e.g. "sd3".
        opset: ONNX opset of all graphs.
        resolution: side of the package's own square images in pixels.
        latent_shape: (C, h, w) of one such image's noise.
        times: the times t at which a generator evaluates its network, by NFE (as text).
        generators: the graphs from noise to these images, by NFE (as text).
        text: the graph from token ids to prompt embeddings; None in a package that takes embeddings alone, as
            those of some families were in format 2.
        tokenizers: what gives the text graph's inputs.
        files: every other file of the package by relative POSIX path.
        precision: of the generators' denoiser: "fp32", "fp16", or weights in "int8" or "int4".
        text_precision: of the text encoders, likewise.
        sampler: what the generators compute, in words and formulas.
        noise: how a seed becomes noise, by name.
        provenance: the pipeline's class, the SHA-256 of the denoiser's weights, and the libraries that made the graphs.
        sizes: what draws images of other sizes, by `WIDTHxHEIGHT`.
    """

    format: int
    family: str
    opset: int
    resolution: int
    latent_shape: tuple[int, int, int]
    times: dict[str, tuple[float, ...]]
    generators: dict[str, GraphSpec]
    text: GraphSpec | None
    tokenizers: tuple[TokenizerSpec, ...]
    files: dict[str, FileRecord]
    precision: str = "fp32"
    text_precision: str = "fp32"
    sampler: str = ""
    noise: str = ""
    provenance: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, SizeSpec] = field(default_factory=dict)

    @property
    def size_names(self) -> list[str]:
        """All sizes of images, `WIDTHxHEIGHT`; the package's own is the first."""
        return [f"{self.resolution}x{self.resolution}", *self.sizes]

    def at(self, size: str | None = None) -> SizeSpec:
        """What draws images of a size, the package's own if None.

        Raises:
            TwinflowError: the package does not draw at that size.
        """
        if size is None or size == self.size_names[0]:
            return SizeSpec(self.latent_shape, self.generators)
        if size not in self.sizes:
            raise TwinflowError(
                f"The package does not draw images of {size} pixels.",
                where="size",
                fix=f"Use one of: {', '.join(self.size_names)}; or add it to export.sizes in params.yaml and export "
                "again.",
            )
        return self.sizes[size]

    @property
    def nfe(self) -> list[int]:
        """The numbers of evaluations that the package can generate with, ascending."""
        return sorted(int(steps) for steps in self.generators)

    def write(self, package: Path) -> None:
        """Save as manifest.json in the package."""
        document = asdict(self)
        # Runtimes that follow a channel may be older, and refuse keys that they do not know.
        if not self.sizes:
            del document["sizes"]
        if self.text_precision == "fp32":
            del document["text_precision"]
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
        (package / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(package: Path) -> PackageManifest:
    """Load a package's manifest.

    Raises:
        TwinflowError: there is none, it is damaged, or a newer version of this program wrote it.
    """
    path = package / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TwinflowError("There is no exported package here.", where=str(path), fix=GET_AGAIN) from None
    except (OSError, ValueError) as error:
        raise TwinflowError(
            "The package's manifest is damaged.", where=f"{path}: {error}", fix=GET_AGAIN
        ) from None
    found = document.get("format") if isinstance(document, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise TwinflowError(
            f"The package has format {found}; this program reads up to {FORMAT_VERSION}.",
            where=str(path),
            fix="Update this program.",
        )
    try:
        return _parse(document)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise TwinflowError(
            "The package's manifest is damaged.", where=f"{path}: {error!r}", fix=GET_AGAIN
        ) from None


def verify_files(package: Path, manifest: PackageManifest) -> None:
    """Compare every file with its record.

    Raises:
        TwinflowError: files are missing, cut short or changed; all of them are named.
    """
    problems = []
    for name, record in manifest.files.items():
        path = package / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != record.size:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {record.size}")
        elif file_sha256(path) != record.sha256:
            problems.append(f"{name} was changed")
    if problems:
        raise TwinflowError(
            f"The package is damaged: {'; '.join(problems)}.", where=str(package), fix=GET_AGAIN
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(document: dict[str, Any]) -> PackageManifest:
    document = {name: value for name, value in document.items() if name not in DROPPED}
    text = None if document["text"] is None else _graph(document["text"])
    return PackageManifest(
        **{
            **document,
            "latent_shape": _latent_shape(document),
            "times": {steps: tuple(times) for steps, times in document["times"].items()},
            "generators": _generators(document),
            "text": text,
            "tokenizers": tuple(_tokenizers(document["tokenizers"], text)),
            "files": {name: FileRecord(**record) for name, record in document["files"].items()},
            "sizes": {
                size: SizeSpec(_latent_shape(spec), _generators(spec))
                for size, spec in document.get("sizes", {}).items()
            },
        }
    )


def _tokenizers(documents: Iterable[Any], text: GraphSpec | None) -> Iterator[TokenizerSpec]:
    """Up to format 2 each was a file alone, in the order of the text graph's inputs."""
    for place, each in enumerate(documents):
        if isinstance(each, str):
            yield TokenizerSpec(each, text.inputs[place].name if text else "")
        else:
            yield TokenizerSpec(**{**each, "wording": Wording(**each["wording"])})


def _latent_shape(document: dict[str, Any]) -> tuple[int, int, int]:
    channels, height, width = document["latent_shape"]
    return (int(channels), int(height), int(width))


def _generators(document: dict[str, Any]) -> dict[str, GraphSpec]:
    return {steps: _graph(graph) for steps, graph in document["generators"].items()}


def _graph(document: dict[str, Any]) -> GraphSpec:
    return GraphSpec(document["file"], _tensors(document["inputs"]), _tensors(document["outputs"]))


def _tensors(documents: Iterable[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each["name"], each["dtype"], tuple(each["shape"])) for each in documents)
