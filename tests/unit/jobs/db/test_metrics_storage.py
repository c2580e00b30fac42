from __future__ import annotations

import pytest

from diarist.jobs.db import metrics_storage
from diarist.jobs.db.metrics_storage import BOUNDS, SECONDS, MetricSample
from support.job_stores import Clock, open_sqlite_store


@pytest.fixture
def connection(tmp_path):
    store = open_sqlite_store(str(tmp_path), Clock())
    with store.database.writing() as opened:
        yield opened
    store.close()


def test_nothing_was_counted(connection):
    assert metrics_storage.read(connection) == ()


def test_a_counter_has_no_buckets_and_labels_make_another(connection):
    for state in ("failed", "succeeded", "failed"):
        metrics_storage.increment(connection, metrics_storage.JOBS_ENDED, state=state)
    assert metrics_storage.read(connection) == (
        MetricSample(metrics_storage.JOBS_ENDED, (("state", "failed"),), 2.0),
        MetricSample(metrics_storage.JOBS_ENDED, (("state", "succeeded"),), 1.0),
    )


def test_buckets_add_up_and_a_bound_belongs_to_its_own(connection):
    values = (0.05, 0.1, 0.100001, 3.0, 10_000.0, 10_001.0)
    for value in values:
        metrics_storage.observe(connection, metrics_storage.JOB_WAIT_SECONDS, value)
    (sample,) = metrics_storage.read(connection)
    assert sample.count == len(values)
    assert sample.sum == pytest.approx(sum(values))
    assert sample.buckets == tuple(float(sum(value <= bound for value in values)) for bound in SECONDS)


def test_the_order_in_which_labels_are_named_is_of_no_account(connection):
    metrics_storage.observe(connection, metrics_storage.STAGE_SECONDS, 1.0, stage="decode", device="cpu")
    metrics_storage.observe(connection, metrics_storage.STAGE_SECONDS, 2.0, device="cpu", stage="decode")
    (sample,) = metrics_storage.read(connection)
    assert (sample.labels, sample.count) == ((("device", "cpu"), ("stage", "decode")), 2.0)


def test_bounds_rise_and_have_names_of_their_own():
    for bounds in BOUNDS.values():
        assert list(bounds) == sorted(set(bounds))
        assert len({f"{bound:g}" for bound in bounds} | {"count", "sum"}) == len(bounds) + 2
