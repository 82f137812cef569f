"""Requests that arrive together are drawn together; what is too much is refused at the door."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.noise import image_noise
from twinflow_core.runtime.generator import Serving

# The key of the one image of a request: what `Generator.generate([prompt], seed)` draws is what comes back.
IMAGE_KEY = "0"
SPEED_MEMORY = 0.8
Pixels = NDArray[np.uint8]


class Overloaded(Exception):
    """As many requests wait as may wait; `retry_after` says in how many seconds there will be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Drawn:
    """A picture, and how many were drawn with it."""

    png: bytes
    batch: int


@dataclass(frozen=True, eq=False)
class _Job:
    """One picture that somebody waits for."""

    serving: Serving
    prompt: str
    seed: int
    steps: int
    latent_shape: tuple[int, int, int]
    done: asyncio.Future[tuple[Pixels, int]] = field(repr=False)

    def goes_with(self, other: _Job) -> bool:
        alike = self.steps == other.steps and self.latent_shape == other.latent_shape
        return self.serving is other.serving and alike


class MicroBatcher:
    """Draws in batches, in order of arrival. Lives in one event loop; one thread draws.

    Args:
        largest: the most images drawn at once.
        patience: how long the first of a batch waits for company, in seconds; 0 draws at once. While one batch is
            drawn the next one gathers anyway.
        most: requests admitted at a time, those being drawn included. This bounds the memory.
    """

    def __init__(self, largest: int, patience: float, most: int) -> None:
        self.admitted = 0
        self._largest = largest
        self._patience = patience
        self._most = most
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._image_seconds = 0.05
        self._drawer = ThreadPoolExecutor(1, "twinflow-draw")

    def admit(self) -> Admission:
        """A place for one request, as a context manager.

        Raises:
            Overloaded: on entering, if there is none.
        """
        return Admission(self)

    async def draw(
        self, serving: Serving, prompt: str, seed: int, steps: int, size: str | None = None
    ) -> Drawn:
        """Draw one picture with one version, together with whatever else is asked of it at that size.

        Raises:
            TwinflowError: the version does not draw at that size.
            InfrastructureError: ONNX Runtime failed.
        """
        loop = asyncio.get_running_loop()
        shape = serving.package.manifest.at(size).latent_shape
        job = _Job(serving, prompt, seed, steps, shape, loop.create_future())
        self._waiting.append(job)
        self._arrived.set()
        pixels, batch = await job.done
        return Drawn(await loop.run_in_executor(None, as_png, pixels), batch)

    async def run(self) -> None:
        """Draw until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._largest and self._patience > 0:
                await asyncio.sleep(self._patience)
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                continue
            began = time.perf_counter()
            try:
                images = await loop.run_in_executor(self._drawer, _draw, batch)
            except Exception as error:
                _refuse(batch, error)
                continue
            self._note(len(batch), time.perf_counter() - began)
            for job, pixels in zip(batch, images, strict=True):
                if not job.done.done():
                    job.done.set_result((pixels, len(batch)))

    def seconds_until_room(self) -> int:
        """Whole seconds, at least 1, in which those that wait now will be drawn."""
        return max(1, math.ceil(self.admitted * self._image_seconds))

    def _next_batch(self) -> list[_Job]:
        """The first job and those after it that can be drawn with it; those that nobody waits for any more go."""
        batch: list[_Job] = []
        others: deque[_Job] = deque()
        while self._waiting and len(batch) < self._largest:
            job = self._waiting.popleft()
            if job.done.done():
                continue
            (batch if not batch or job.goes_with(batch[0]) else others).append(job)
        self._waiting.extendleft(reversed(others))
        return batch

    def _note(self, images: int, seconds: float) -> None:
        self._image_seconds = SPEED_MEMORY * self._image_seconds + (1 - SPEED_MEMORY) * seconds / images


class Admission:
    """One of the places that a batcher has."""

    def __init__(self, batcher: MicroBatcher) -> None:
        self._batcher = batcher

    def __enter__(self) -> None:
        if self._batcher.admitted >= self._batcher._most:
            raise Overloaded(self._batcher.seconds_until_room())
        self._batcher.admitted += 1

    def __exit__(self, *_: object) -> None:
        self._batcher.admitted -= 1


def as_png(pixels: Pixels) -> bytes:
    """uint8 [H, W, 3] as a PNG, written for speed."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _draw(batch: list[_Job]) -> Pixels:
    first = batch[0]
    noises = np.stack([image_noise(job.seed, IMAGE_KEY, job.steps, job.latent_shape) for job in batch])
    return first.serving.draw([job.prompt for job in batch], noises)


def _refuse(batch: list[_Job], error: Exception) -> None:
    told = error if isinstance(error, TwinflowError) else InfrastructureError(f"Drawing failed: {error!r}.")
    for job in batch:
        if not job.done.done():
            job.done.set_exception(told)
