"""Prompts to images with an exported package: tokenizers, the text graph, a generator graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinflow_core.errors import TwinflowError
from twinflow_core.noise import image_noise
from twinflow_core.runtime.package import (
    EMBEDS,
    MASK,
    NOISES,
    GraphSpec,
    PackageManifest,
    SizeSpec,
    read_manifest,
    verify_files,
)
from twinflow_core.runtime.prompt_tokens import PromptTokens
from twinflow_core.runtime.providers import ProviderChoice, choose_provider
from twinflow_core.runtime.sessions import GraphSession, ProviderFailed

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class PromptEmbeddings:
    """What the generators are told about N prompts.

    Attributes:
        parts: by the generators' names, N rows each: prompt_embeds float32 [N, T, D]; where the family has them,
            pooled_prompt_embeds float32 [N, P] and prompt_mask bool [N, T].
    """

    parts: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: slice) -> PromptEmbeddings:
        return PromptEmbeddings({name: part[rows] for name, part in self.parts.items()})

    def copy(self) -> PromptEmbeddings:
        """The same in memory of its own: a view of one row keeps the whole batch alive."""
        return PromptEmbeddings({name: part.copy() for name, part in self.parts.items()})

    def filled_up(self, tokens: int) -> PromptEmbeddings:
        """With zeros that do not count at the end of prompts shorter than `tokens`.

        Raises:
            ValueError: the prompts are longer, or shorter where every token counts.
        """
        missing = tokens - self.parts[EMBEDS].shape[1]
        if missing == 0:
            return self
        if missing < 0 or MASK not in self.parts:
            raise ValueError(f"prompts of {tokens - missing} tokens, where the graph takes {tokens}")
        wide = {EMBEDS: ((0, 0), (0, missing), (0, 0)), MASK: ((0, 0), (0, missing))}
        return PromptEmbeddings(
            {name: np.pad(part, wide[name]) if name in wide else part for name, part in self.parts.items()}
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())

    @staticmethod
    def cat(batches: Sequence[PromptEmbeddings]) -> PromptEmbeddings:
        """The rows of at least one batch, one after the other."""
        names = batches[0].parts
        return PromptEmbeddings(
            {name: np.concatenate([each.parts[name] for each in batches]) for name in names}
        )


class LoadedPackage:
    """A loaded package. Use `LoadedPackage.from_folder`.

    Attributes:
        manifest: what the package holds.
        provider: what it runs on, and what was passed over for which reason.
    """

    def __init__(
        self, package: Path, manifest: PackageManifest, provider: ProviderChoice, threads: int
    ) -> None:
        self.manifest = manifest
        self.provider = provider
        self._package = package
        self._threads = threads
        self._tokenizers = [PromptTokens(package, spec) for spec in manifest.tokenizers]
        self._text = self._open(manifest.text.file) if manifest.text else None
        # By file.
        self._generators: dict[str, GraphSession] = {}
        self._opening = Lock()

    @classmethod
    def from_folder(
        cls, path: Path | str, providers: str = "auto", *, verify: bool = True, threads: int = 0
    ) -> LoadedPackage:
        """Load a package.

        Args:
            path: the folder that holds manifest.json.
            providers: "auto", "tensorrt", "cuda" or "cpu". Auto passes over a provider that fails to start.
            verify: compare every file's SHA-256 with the manifest first.
            threads: within an operator; 0 takes all cores.

        Raises:
            TwinflowError: no package there, a file is missing or damaged, or the provider cannot be used.
        """
        package = Path(path)
        manifest = read_manifest(package)
        if verify:
            verify_files(package, manifest)
        failed: dict[str, str] = {}
        while True:
            choice = choose_provider(providers, failed)
            try:
                return cls(package, manifest, choice, threads)
            except ProviderFailed as error:
                if providers != "auto":
                    raise
                failed[choice.name] = error.what

    def warm_up(self, batch: int) -> None:
        """Draw once with every generator, at one image and at `batch`: memory is taken and kernels are chosen."""
        for size, steps, rows in product(self.manifest.size_names, self.manifest.nfe, sorted({1, batch})):
            noises = np.zeros((rows, steps, *self.manifest.at(size).latent_shape), np.float32)
            self.render(noises, self.no_prompts(rows))
        if self.manifest.text:
            self.encode([""] * batch)

    def generate(
        self,
        prompts: Sequence[str],
        seed: int = 0,
        steps: int = 1,
        batch_size: int = 16,
        size: str | None = None,
    ) -> Images:
        """One image a prompt.

        Args:
            prompts: any text; what is longer than the tokenizer's length is cut.
            seed: of the noise. The image at one position is the same for every batch size, within 1/255.
            steps: network evaluations an image, one of `manifest.nfe`.
            batch_size: images at once.
            size: `WIDTHxHEIGHT`, one of `manifest.size_names`; None for the package's own.

        Returns:
            uint8 [N, H, W, 3].

        Raises:
            TwinflowError: the package has no generator for that many steps, or for that size.
        """
        self.require_steps(steps)
        shape = self.manifest.at(size).latent_shape
        noises = [image_noise(seed, str(index), steps, shape) for index in range(len(prompts))]
        stacked = np.stack(noises) if noises else np.empty((0, steps, *shape), np.float32)
        return self.generate_from_noise(stacked, prompts, batch_size)

    def generate_from_noise(
        self, noises: NDArray[np.float32], prompts: Sequence[str], batch_size: int = 16
    ) -> Images:
        """One image a prompt, from noises that the caller drew.

        Args:
            noises: float32 [N, k, C, h, w]; k says how many evaluations to make, h and w of what size the images are.
            prompts: N texts.
            batch_size: images at once.

        Returns:
            uint8 [N, H, W, 3].

        Raises:
            TwinflowError: the package has no generator for k steps.
        """
        batches = [np.empty((0, *self._drawing(noises).pixels, 3), np.uint8)]
        for first in range(0, len(prompts), batch_size):
            rows = slice(first, first + batch_size)
            batches.append(to_pixels(self.render(noises[rows], self.encode(prompts[rows]))))
        return np.concatenate(batches)

    def require_text(self) -> GraphSpec:
        """The text graph's description. Raises `TwinflowError` if the package takes prompt embeddings alone."""
        if self.manifest.text is None:
            raise TwinflowError(
                "This package takes prompt embeddings, not texts: its text encoder was not exported.",
                where=str(self._package),
                fix="Redo the export stage, or compute the embeddings with the model's own pipeline and call `render`.",
            )
        return self.manifest.text

    def encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embeddings of the prompts, all in one batch.

        Raises:
            TwinflowError: the package has no text encoder.
        """
        text = self.require_text()
        assert self._text is not None
        tokens = [tokenizer(prompts) for tokenizer in self._tokenizers]
        given = self._text.run({name: part for each in tokens for name, part in each.items()})
        return PromptEmbeddings({spec.name: part for spec, part in zip(text.outputs, given, strict=True)})

    def no_prompts(self, rows: int) -> PromptEmbeddings:
        """Embeddings of zeros, where every token counts: for warming up and for checks."""
        generator = next(iter(self.manifest.generators.values()))
        shapes = {
            spec.name: (rows, *map(int, spec.shape[1:])) for spec in generator.inputs if spec.name != NOISES
        }
        types = {spec.name: spec.dtype for spec in generator.inputs}
        return PromptEmbeddings(
            {
                name: np.ones(shape, bool) if types[name] == "bool" else np.zeros(shape, np.float32)
                for name, shape in shapes.items()
            }
        )

    def render(self, noises: NDArray[np.float32], prompts: PromptEmbeddings) -> NDArray[np.float32]:
        """Images float32 [N, 3, H, W] in [0, 1], all in one batch.

        Args:
            noises: [N, k, C, h, w]; h and w say of what size the images are.
            prompts: N rows, from `encode` or from the model's own pipeline.

        Raises:
            TwinflowError: the package has no generator for k steps.
        """
        steps = noises.shape[1]
        self.require_steps(steps)
        session = self._opened(self._drawing(noises).generators[str(steps)].file)
        # The graph counts evaluations first, so that each step's noise is one block of memory.
        by_step = np.ascontiguousarray(noises.swapaxes(0, 1))
        return session.run({NOISES: by_step, **prompts.filled_up(self._tokens).parts})[0]

    @property
    def _tokens(self) -> int:
        """Tokens of a prompt that the generators take."""
        generator = next(iter(self.manifest.generators.values()))
        return next(int(spec.shape[1]) for spec in generator.inputs if spec.name == EMBEDS)

    def _drawing(self, noises: NDArray[np.float32]) -> SizeSpec:
        """What draws from noises of this shape; for a shape that none has, the package's own, which says so."""
        specs = (self.manifest.at(size) for size in self.manifest.size_names)
        return next((spec for spec in specs if spec.latent_shape == noises.shape[2:]), self.manifest.at())

    def _opened(self, file: str) -> GraphSession:
        with self._opening:
            if file not in self._generators:
                self._generators[file] = self._open(file)
            return self._generators[file]

    def require_steps(self, steps: int) -> None:
        """Refuse a number of evaluations that the package has no generator for. Raises `TwinflowError`."""
        if steps not in self.manifest.nfe:
            known = ", ".join(map(str, self.manifest.nfe))
            raise TwinflowError(
                f"The package cannot generate in {steps} step(s).",
                where=str(self._package),
                fix=f"Use one of: {known}; or add {steps} to export.steps in params.yaml and export again.",
            )

    def _open(self, file: str) -> GraphSession:
        return GraphSession(self._package / file, self.provider.name, self._threads)


def to_pixels(images: NDArray[np.float32]) -> Images:
    """float [N, 3, H, W] in [0, 1] as uint8 [N, H, W, 3], rounded to the nearest."""
    return np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
