"""Clients that ask a running service for images as fast as it answers, and check every answer."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twinflow_core.runtime.loaded_package import LoadedPackage

Wanted = tuple[str, int]
# What a service may be asked for, and what each version draws for it.
Expected = Mapping[str, Mapping[Wanted, NDArray[np.uint8]]]
REQUESTS: tuple[Wanted, ...] = (("a red circle", 0), ("two blue squares", 1), ("", 2), ("a red circle", 3))


@dataclass
class Answers:
    """What came back: statuses, seconds of each, and each distinct image by (version, what was asked)."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    images: Counter[tuple[str, Wanted, bytes]] = field(default_factory=Counter)
    unnamed: int = 0
    without_retry_after: int = 0
    broken: list[str] = field(default_factory=list)

    def wrong(self, expected: Expected) -> int:
        """How many images are not what the version that they name draws, within 1/255."""
        return sum(
            count
            for (version, wanted, png), count in self.images.items()
            if not _same(png, expected.get(version, {}).get(wanted))
        )

    def by_version(self) -> dict[str, int]:
        """Images of each version."""
        versions: Counter[str] = Counter()
        for (version, _, _), count in self.images.items():
            versions[version] += count
        return dict(versions)


def expected_images(packages: Mapping[str, LoadedPackage]) -> Expected:
    """What each version draws for REQUESTS."""
    return {
        version: {(prompt, seed): package.generate([prompt], seed)[0] for prompt, seed in REQUESTS}
        for version, package in packages.items()
    }


class Load:
    """Some clients, each with one request at a time on one connection, until told to stop."""

    def __init__(self, url: str, clients: int) -> None:
        self.answers = Answers()
        self._address = urlsplit(url).netloc
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(index,)) for index in range(clients)]
        self._began = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> tuple[Answers, float]:
        """End; what came back, and in how many seconds."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answers, time.perf_counter() - self._began

    def _ask(self, index: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while not self._stop.is_set():
            wanted = REQUESTS[index % len(REQUESTS)]
            index += 1
            began = time.perf_counter()
            try:
                status, headers, body = post(connection, {"prompt": wanted[0], "seed": wanted[1]})
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.answers.broken.append(repr(error))
                connection.close()
                continue
            with self._lock:
                self._note(wanted, status, headers, body, time.perf_counter() - began)
        connection.close()

    def _note(
        self, wanted: Wanted, status: int, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> None:
        self.answers.statuses[status] += 1
        version = headers.get("x-twinflow-version", "")
        self.answers.unnamed += not version
        if status == 200:
            self.answers.seconds.append(seconds)
            self.answers.images[version, wanted, body] += 1
        if status == 429:
            self.answers.without_retry_after += int(headers.get("retry-after", "0")) < 1


def post(connection: http.client.HTTPConnection, document: Any) -> tuple[int, dict[str, str], bytes]:
    """Ask for an image; status, headers in lower case, body."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    connection.request("POST", "/images", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def wait_until_served(url: str, generation: int, seconds: float = 60.0) -> float:
    """How many seconds it takes until the service serves this entry of its channel; fails when it never does."""
    began = time.monotonic()
    while health(url)["generation"] != generation:
        assert time.monotonic() - began < seconds, f"generation {generation} is not served after {seconds} s"
        time.sleep(0.05)
    return round(time.monotonic() - began, 1)


def health(url: str) -> dict[str, Any]:
    """What GET /health says."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", "/health")
    document: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return document


def percentile(seconds: Sequence[float], share: float) -> float:
    """In milliseconds."""
    return round(1000 * float(np.percentile(seconds, share)), 1) if seconds else float("nan")


def pixels(png: bytes) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)))


def _same(png: bytes, expected: NDArray[np.uint8] | None) -> bool:
    return expected is not None and int(np.abs(pixels(png).astype(int) - expected.astype(int)).max()) <= 1
