from __future__ import annotations

import pytest

from diarist.jobs.db import stored_metrics
from diarist.jobs.db.stored_metrics import BOUNDS, SECONDS, MetricSample
from support.job_stores import Clock, open_sqlite_store


@pytest.fixture
def connection(tmp_path):
    store = open_sqlite_store(str(tmp_path), Clock())
    with store.database.writing() as opened:
        yield opened
    store.close()


def test_nothing_was_counted(connection):
    assert stored_metrics.read(connection) == ()


def test_a_counter_has_no_buckets_and_labels_make_another(connection):
    for state in ("failed", "succeeded", "failed"):
        stored_metrics.count(connection, stored_metrics.JOBS_ENDED, state=state)
    assert stored_metrics.read(connection) == (
        MetricSample(stored_metrics.JOBS_ENDED, (("state", "failed"),), 2.0),
        MetricSample(stored_metrics.JOBS_ENDED, (("state", "succeeded"),), 1.0),
    )


def test_buckets_add_up_and_a_bound_belongs_to_its_own(connection):
    values = (0.05, 0.1, 0.100001, 3.0, 10_000.0, 10_001.0)
    for value in values:
        stored_metrics.observe(connection, stored_metrics.JOB_WAIT_SECONDS, value)
    (sample,) = stored_metrics.read(connection)
    assert sample.count == len(values)
    assert sample.sum == pytest.approx(sum(values))
    assert sample.buckets == tuple(float(sum(value <= bound for value in values)) for bound in SECONDS)


def test_the_order_in_which_labels_are_named_is_of_no_account(connection):
    stored_metrics.observe(connection, stored_metrics.STAGE_SECONDS, 1.0, stage="decode", device="cpu")
    stored_metrics.observe(connection, stored_metrics.STAGE_SECONDS, 2.0, device="cpu", stage="decode")
    (sample,) = stored_metrics.read(connection)
    assert (sample.labels, sample.count) == ((("device", "cpu"), ("stage", "decode")), 2.0)


def test_bounds_rise_and_have_names_of_their_own():
    for bounds in BOUNDS.values():
        assert list(bounds) == sorted(set(bounds))
        assert len({f"{bound:g}" for bound in bounds} | {"count", "sum"}) == len(bounds) + 2
