"""``GET /metrics`` for Prometheus: metrics from the job store, and metrics of this process.

The metrics from the job store are the same in every process. Label values come from fixed sets; they never contain
names, IDs, addresses or API keys of callers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from apiflask import APIBlueprint, APIFlask
from flask import Response, current_app, request
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from diarist import __version__
from diarist.api.instrumentation import Instrumentation
from diarist.api.openapi import Document
from diarist.background_refresh import RefreshingValue
from diarist.errors import ServiceError
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.metrics_snapshot import MetricsSnapshot
from diarist.jobs.db.metrics_storage import BOUNDS, MetricSample

logger = logging.getLogger(__name__)

blueprint = APIBlueprint("metrics", __name__, tag="Status")

MAX_AGE_S = 1.0
"""The minimum time between two reads of the job store in seconds, however many clients scrape."""

TIMEOUT_S = 3.0
"""A job store that does not answer within this time, in seconds, is reported as down."""

REGISTRY_EXTENSION = "diarist.metrics"
"""The key of the metrics registry in ``app.extensions``."""

TEXT_SCHEMA = {"schema": {"type": "string"}}
RESPONSES: dict[int | str, Document] = {
    200: {
        "description": "The metrics of the service and of the process that answers the request.",
        "content": {"text/plain": TEXT_SCHEMA, "application/openmetrics-text": TEXT_SCHEMA},
    },
}

# Stored metric -> its help text, its labels, and the label values that are exported with 0 before anything is counted.
_COUNTERS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    metrics_storage.JOBS_ENDED: (
        "Jobs that have ended, by their final state.", ("state",), (("succeeded",), ("failed",), ("canceled",)),
    ),
    metrics_storage.WORKER_RESTARTS: ("Worker processes that died and were replaced.", (), ((),)),
    metrics_storage.WEBHOOK_DELIVERIES: (
        "Attempts to deliver a webhook, by outcome.", ("outcome",), (("delivered",), ("retried",), ("given_up",)),
    ),
}  # fmt: skip
_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    metrics_storage.STAGE_SECONDS: ("Duration of each stage of a job, in seconds.", ("stage",)),
    metrics_storage.REAL_TIME_FACTOR: ("Processing time of a job divided by the duration of its recording.", ()),
    metrics_storage.JOB_WAIT_SECONDS: ("Time from the arrival of a job until a worker claimed it, in seconds.", ()),
    metrics_storage.MODEL_LOAD_SECONDS: ("Time until a worker had loaded its models, in seconds.", ()),
}


def register(app: APIFlask, read_snapshot: Callable[[], MetricsSnapshot], engine: str) -> None:
    """Add ``/metrics`` to ``app``, and count and trace its requests.

    Call this after all other middleware has been added to ``app.wsgi_app``.

    Args:
        app: The application. Routes that are added later are counted too.
        read_snapshot: Reads the metrics of the job store. It may raise ``ServiceError``.
        engine: The name of the engine.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_BuildCollector(engine))
    registry.register(_StoreCollector(read_snapshot))
    app.extensions[REGISTRY_EXTENSION] = registry
    app.register_blueprint(blueprint)
    app.wsgi_app = Instrumentation(app, registry)  # type: ignore[method-assign]


@blueprint.get("/metrics")
@blueprint.doc(responses=RESPONSES, operation_id="metrics")
def metrics() -> Response:
    """Return the metrics of the service for Prometheus."""
    try:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    except (ValueError, TypeError):  # an invalid version number
        encode, content_type = choose_encoder("")
    registry: CollectorRegistry = current_app.extensions[REGISTRY_EXTENSION]
    return Response(encode(registry), content_type=content_type, headers={"Cache-Control": "no-store"})


class _BuildCollector:
    """Collects the version and the engine of this process."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "diarist_build_info",
            "Version and engine of the service; the value is always 1.",
            labels=("version", "engine"),
        )
        build.add_metric((__version__, self._engine), 1)
        yield build


class _StoreCollector:
    """Collects the metrics from the job store, which is read when Prometheus scrapes."""

    def __init__(self, read_snapshot: Callable[[], MetricsSnapshot]) -> None:
        self._snapshot = RefreshingValue("metrics", read_snapshot, MAX_AGE_S)

    def collect(self) -> Iterator[Metric]:
        snapshot = self._read()
        yield GaugeMetricFamily(
            "diarist_store_up", "Whether the job store can be read.", value=int(snapshot is not None)
        )
        if snapshot is not None:
            yield from _gauges(snapshot)
            yield from _counters(snapshot.samples)
            yield from _histograms(snapshot.samples)

    def _read(self) -> MetricsSnapshot | None:
        """Return a current snapshot, or None if the store cannot be read.

        An older one is not returned, because it would be taken for the current state of the service.
        """
        try:
            cached = self._snapshot.get(MAX_AGE_S, TIMEOUT_S)
        except ServiceError as error:
            logger.warning("The metrics of the job store are missing: %s", error)
            return None
        if cached is None:
            logger.warning("The metrics of the job store are missing: it does not answer")
            return None
        return cached.value


def _gauges(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    states = GaugeMetricFamily("diarist_jobs", "Jobs and waiting requests in the store, by state.", labels=("state",))
    for state, count in snapshot.jobs.items():
        states.add_metric((state.value,), count)
    yield states
    depth = GaugeMetricFamily("diarist_queue_depth", "Jobs that a worker may claim now, by queue.", labels=("queue",))
    oldest = GaugeMetricFamily(
        "diarist_queue_oldest_seconds",
        "Age of the oldest job in the queue in seconds; 0 if the queue is empty.",
        labels=("queue",),
    )
    for queue in snapshot.queues:
        depth.add_metric((queue.queue,), queue.depth)
        age_s = 0.0 if queue.oldest_at is None else (snapshot.at - queue.oldest_at).total_seconds()
        oldest.add_metric((queue.queue,), max(age_s, 0.0))
    yield depth
    yield oldest
    workers = GaugeMetricFamily("diarist_workers", "Workers, by the state that they last reported.", labels=("state",))
    for name, count in snapshot.workers.items():
        workers.add_metric((name,), count)
    yield workers


def _counters(samples: Iterable[MetricSample]) -> Iterator[Metric]:
    for name, (help_text, labels, initial) in _COUNTERS.items():
        family = CounterMetricFamily(f"diarist_{name}", help_text, labels=labels)
        counts = {_label_values(sample, labels): sample.count for sample in samples if sample.metric == name}
        for values, count in (dict.fromkeys(initial, 0.0) | counts).items():
            family.add_metric(values, count)
        yield family


def _histograms(samples: Iterable[MetricSample]) -> Iterator[Metric]:
    for name, (help_text, labels) in _HISTOGRAMS.items():
        family = HistogramMetricFamily(f"diarist_{name}", help_text, labels=labels)
        family_samples = [sample for sample in samples if sample.metric == name]
        if not labels:
            family_samples = family_samples or [MetricSample(name, (), 0.0, 0.0, (0.0,) * len(BOUNDS[name]))]
        for sample in family_samples:
            bounds = (*map(floatToGoString, BOUNDS[name]), "+Inf")
            buckets = list(zip(bounds, (*sample.buckets, sample.count), strict=True))
            family.add_metric(_label_values(sample, labels), buckets, sample.sum)
        yield family


def _label_values(sample: MetricSample, labels: tuple[str, ...]) -> tuple[str, ...]:
    label_by_name = dict(sample.labels)
    return tuple(label_by_name.get(label, "") for label in labels)
