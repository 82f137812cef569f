"""Prompts to images with what a channel serves, or with a package folder; a new version takes over between two
batches."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np
from numpy.typing import NDArray

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.noise import image_noise
from twinflow_core.runtime.channel_follower import ChannelFollower, Release, follow_channel
from twinflow_core.runtime.embedding_cache import EmbeddingCache
from twinflow_core.runtime.loaded_package import Images, LoadedPackage, to_pixels
from twinflow_core.runtime.package import MANIFEST, file_sha256, read_manifest, verify_files

DEFAULT_REFRESH_SECONDS = 30.0
LARGEST_BATCH = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """One version in memory. What holds one draws with this version, whatever the channel does meanwhile."""

    release: Release
    package: LoadedPackage
    embeddings: EmbeddingCache

    @classmethod
    def load(cls, release: Release, providers: str, threads: int, batch: int) -> Serving:
        """Load a release and draw with it once, so that the first request is as fast as the others."""
        package = LoadedPackage.from_folder(release.folder, providers, verify=False, threads=threads)
        package.warm_up(batch)
        return cls(release, package, EmbeddingCache(package.encode))

    def draw(self, prompts: Sequence[str], noises: NDArray[np.float32]) -> Images:
        """uint8 [N, H, W, 3] of N >= 1 prompts and noises float32 [N, k, C, h, w], in one batch."""
        return to_pixels(self.package.render(noises, self.embeddings(prompts)))


class Generator:
    """Draws with one model; use `Generator.from_channel` or `Generator.from_folder`.

    Safe to share between threads: each call draws with one version from its first image to its last.

    Attributes:
        fault: why the channel could not be followed when it was last looked at; None if it could.
        swaps: how often a new version took over.
    """

    def __init__(
        self, serving: Serving, follower: ChannelFollower | None, providers: str, threads: int, batch: int
    ) -> None:
        self._serving = serving
        self._follower = follower
        self._providers = providers
        self._threads = threads
        self._batch = batch
        self._previous: Serving | None = None
        self._turn = Lock()
        self._stop = Event()
        self.fault: TwinflowError | None = None
        self.swaps = 0

    @classmethod
    def from_folder(
        cls,
        path: Path | str,
        providers: str = "auto",
        *,
        verify: bool = True,
        threads: int = 0,
        batch: int = LARGEST_BATCH,
    ) -> Generator:
        """Load a package folder.

        Args:
            path: the folder that holds manifest.json.
            providers: "auto" (TensorRT, else CUDA, else CPU), "tensorrt", "cuda" or "cpu".
            verify: compare every file's SHA-256 with the manifest first.
            threads: within an operator; 0 takes all cores.
            batch: the most images at once.

        Raises:
            TwinflowError: no package there, a file is missing or damaged, or the provider cannot be used.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        if verify:
            verify_files(folder, manifest)
        release = Release(file_sha256(folder / MANIFEST), 0, None, folder)
        return cls(Serving.load(release, providers, threads, batch), None, providers, threads, batch)

    @classmethod
    def from_channel(
        cls,
        channel: str,
        model: str,
        bucket: str = "twinflow",
        *,
        cache: Path | None = None,
        providers: str = "auto",
        threads: int = 0,
        batch: int = LARGEST_BATCH,
        refresh_seconds: float = DEFAULT_REFRESH_SECONDS,
    ) -> Generator:
        """Load what a channel serves, and follow the channel from then on.

        The S3 server is the one that AWS_ENDPOINT_URL_S3 and the AWS keys name. While it is away, what was last
        served goes on serving, at the start too.

        Args:
            channel: `production`, `staging`, ..
            model: the model's name in the registry.
            bucket: where the registry lies.
            cache: folder for versions; the user's cache folder unless told.
            providers: as in `from_folder`.
            threads: as in `from_folder`.
            batch: as in `from_folder`.
            refresh_seconds: how often the channel is looked at, in a thread of its own; 0: only by `refresh`.

        Raises:
            TwinflowError: the set-up is wrong, the channel serves nothing, or the package cannot be used.
            InfrastructureError: the store is away, and nothing of this channel is on this disk.
        """
        follower = follow_channel(channel, model, bucket, cache)
        return cls.following(follower, providers, threads, batch, refresh_seconds)

    @classmethod
    def following(
        cls, follower: ChannelFollower, providers: str, threads: int, batch: int, refresh_seconds: float
    ) -> Generator:
        """As `from_channel`, of a channel that was found otherwise."""
        fault: TwinflowError | None = None
        try:
            release = follower.latest()
        except InfrastructureError as error:
            known = follower.remembered()
            if known is None:
                raise
            release, fault = known, error
            log.warning("serving what was remembered: %s", error.what)
        generator = cls(Serving.load(release, providers, threads, batch), follower, providers, threads, batch)
        generator.fault = fault
        if refresh_seconds > 0:
            Thread(
                target=_keep_refreshing,
                args=(weakref.ref(generator), generator._stop, refresh_seconds),
                name="twinflow-follow",
                daemon=True,
            ).start()
        return generator

    @property
    def serving(self) -> Serving:
        """The version in use now."""
        return self._serving

    def previous(self) -> Serving:
        """The version that the channel served before; loaded when first asked for, kept until the next swap.

        Raises:
            TwinflowError: there was none, or it cannot be loaded.
        """
        with self._turn:
            wanted = self._serving.release.previous
            if wanted is None or self._follower is None:
                raise TwinflowError(
                    "There is no previous version.",
                    where=f"version {self._serving.release.version[:12]}",
                    fix="Ask for the present one.",
                )
            if self._previous is None or self._previous.release.version != wanted:
                release = Release(wanted, 0, None, self._follower.fetch(wanted))
                self._previous = self._load(release)
            return self._previous

    def generate(
        self, prompts: Sequence[str], seed: int = 0, steps: int = 1, size: str | None = None
    ) -> Images:
        """One image a prompt.

        Args:
            prompts: any text; what is longer than the tokenizer's length is cut.
            seed: of the noise. The image at one position is the same for every batch size, within 1/255.
            steps: network evaluations an image.
            size: `WIDTHxHEIGHT`, one that the package draws at; None for its own.

        Returns:
            uint8 [N, H, W, 3].

        Raises:
            TwinflowError: the package has no generator for that many steps, or for that size.
        """
        serving = self._serving
        serving.package.require_steps(steps)
        drawing = serving.package.manifest.at(size)
        images = [np.empty((0, *drawing.pixels, 3), np.uint8)]
        for first in range(0, len(prompts), self._batch):
            batch = prompts[first : first + self._batch]
            keys = range(first, first + len(batch))
            noises = np.stack([image_noise(seed, str(key), steps, drawing.latent_shape) for key in keys])
            images.append(serving.draw(batch, noises))
        return np.concatenate(images)

    def refresh(self) -> bool:
        """Look at the channel, and take over what is new; the old version draws until the new one is ready.

        Returns:
            Whether another version serves now. If the store is away, or what is new cannot be loaded, the old
            version stays and `fault` says why.
        """
        if self._follower is None:
            return False
        with self._turn:
            try:
                release = self._follower.latest(self._serving.release)
                moved = release.version != self._serving.release.version
                fresh = (
                    self._load(release)
                    if moved
                    else Serving(release, self._serving.package, self._serving.embeddings)
                )
            except TwinflowError as error:
                self.fault = error
                log.warning("the old version goes on serving: %s", error)
                return False
            self.fault = None
            if moved:
                # The old champion is what people compare the new one with; it is in memory already.
                self._previous = self._serving if self._previous is not None else None
                self.swaps += 1
                log.info("version %s serves now", release.version[:12])
            self._serving = fresh
            return moved

    def close(self) -> None:
        """Stop following the channel; drawing stays possible."""
        self._stop.set()

    def _load(self, release: Release) -> Serving:
        for held in (self._serving, self._previous):
            if held is not None and held.release.version == release.version:
                return Serving(release, held.package, held.embeddings)
        return Serving.load(release, self._providers, self._threads, self._batch)


def _keep_refreshing(reference: weakref.ref[Generator], stop: Event, seconds: float) -> None:
    """Refresh until `stop`, or until nobody holds the generator any more."""
    while not stop.wait(seconds):
        generator = reference()
        if generator is None:
            return
        try:
            generator.refresh()
        except Exception:
            # What nobody foresaw must not end the following: the next look may go well.
            log.exception("the channel could not be followed")
        del generator
