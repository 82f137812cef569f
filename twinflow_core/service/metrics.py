"""What an operator watches, as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from twinflow_core.runtime.generator import Generator
from twinflow_core.service.batching import MicroBatcher

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one service. Safe to share between threads."""

    def __init__(self, generator: Generator, batcher: MicroBatcher) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "twinflow_requests", "Requests for an image, by status.", ["status"], registry=self._registry
        )
        self.images = Counter(
            "twinflow_images", "Images drawn, by version.", ["version"], registry=self._registry
        )
        self.seconds = Histogram(
            "twinflow_request_seconds",
            "From a request's arrival to its image.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.batch = Histogram(
            "twinflow_batch_images",
            "Images drawn together with this one.",
            buckets=BATCHES,
            registry=self._registry,
        )
        self._registry.register(_State(generator, batcher))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is read off at the moment of asking."""

    def __init__(self, generator: Generator, batcher: MicroBatcher) -> None:
        self._generator = generator
        self._batcher = batcher

    def collect(self) -> Iterator[Metric]:
        """The gauges, and counters that others keep."""
        serving = self._generator.serving
        yield GaugeMetricFamily("twinflow_admitted", "Requests in hand.", self._batcher.admitted)
        yield GaugeMetricFamily(
            "twinflow_generation", "The channel's entry served.", serving.release.generation
        )
        yield GaugeMetricFamily(
            "twinflow_channel_followed",
            "1 if the channel could be read when last looked at, else 0.",
            int(self._generator.fault is None),
        )
        yield CounterMetricFamily("twinflow_swaps", "Versions that took over.", self._generator.swaps)
        cache = serving.embeddings
        yield GaugeMetricFamily("twinflow_embedding_cache_bytes", "Embeddings held.", cache.bytes_held)
        yield CounterMetricFamily("twinflow_embedding_cache_hits", "Texts found.", cache.hits)
        yield CounterMetricFamily("twinflow_embedding_cache_misses", "Texts encoded.", cache.misses)
