"""Counters and histograms in the table ``metrics``, to which all processes of a fleet add.

A histogram is one in the sense of Prometheus: the number of values that do not exceed each bound, the number of all
values, and their sum. ``metrics_snapshot`` reads these metrics together with those that follow from other tables.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from diarist.jobs.db.database import upsert
from diarist.jobs.db.schema import metrics

STAGE_SECONDS = "stage_seconds"
REAL_TIME_FACTOR = "real_time_factor"
JOB_WAIT_SECONDS = "job_wait_seconds"
MODEL_LOAD_SECONDS = "model_load_seconds"
JOBS_ENDED = "jobs_ended"
WORKER_RESTARTS = "worker_restarts"
WEBHOOK_DELIVERIES = "webhook_deliveries"

SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
BOUNDS: Mapping[str, tuple[float, ...]] = {
    STAGE_SECONDS: SECONDS,
    JOB_WAIT_SECONDS: SECONDS,
    MODEL_LOAD_SECONDS: SECONDS,
    REAL_TIME_FACTOR: (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0),
}
"""The upper bounds of the buckets of each histogram. All other metrics are counters."""

_COUNT, _SUM = "count", "sum"


@dataclass(frozen=True, slots=True)
class MetricSample:
    """The value of one metric for one set of labels."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    count: float
    """The value of a counter, or the number of values in a histogram."""

    sum: float = 0.0
    buckets: tuple[float, ...] = ()
    """The number of values that do not exceed each of ``BOUNDS``; empty for a counter."""


def increment(connection: Connection, metric: str, **labels: str) -> None:
    """Add 1 to a counter."""
    _add(connection, metric, _dump(labels), _COUNT, 1.0)


def observe(connection: Connection, metric: str, value: float, **labels: str) -> None:
    """Add a value to a histogram."""
    text = _dump(labels)
    for bound in BOUNDS[metric]:
        if value <= bound:
            _add(connection, metric, text, f"{bound:g}", 1.0)
            break  # buckets are accumulated when they are read, so that one row is written instead of many
    _add(connection, metric, text, _COUNT, 1.0)
    _add(connection, metric, text, _SUM, value)


def read(connection: Connection) -> tuple[MetricSample, ...]:
    """Return all counters and histograms, sorted by metric and labels."""
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in connection.execute(select(metrics)):
        values[row.metric, row.labels][row.bucket] = row.value
    return tuple(_sample(metric, labels, buckets) for (metric, labels), buckets in sorted(values.items()))


def _sample(metric: str, labels: str, values: Mapping[str, float]) -> MetricSample:
    buckets: list[float] = []
    for bound in BOUNDS.get(metric, ()):
        buckets.append((buckets[-1] if buckets else 0.0) + values.get(f"{bound:g}", 0.0))
    names = tuple(sorted(json.loads(labels).items()))
    return MetricSample(metric, names, values.get(_COUNT, 0.0), values.get(_SUM, 0.0), tuple(buckets))


def _add(connection: Connection, metric: str, labels: str, bucket: str, amount: float) -> None:
    values = {"metric": metric, "labels": labels, "bucket": bucket, "value": amount}
    upsert(connection, metrics, values, {"value": metrics.c.value + amount})


def _dump(labels: Mapping[str, str]) -> str:
    return json.dumps(labels, sort_keys=True, separators=(",", ":"))
