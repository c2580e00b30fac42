"""Tests of what a worker reports about its engine."""

from __future__ import annotations

from diarist.jobs.model import PoolStatus, WorkerReport
from diarist.jobs.workers.status import StatusReporter
from diarist.protocols import Engine

NOTICE = "This machine has a GPU, but Whisper runs on the CPU: libcublas.so.12 cannot be loaded."


class Reports:
    """The part of a job store that keeps reports."""

    def __init__(self) -> None:
        self.saved: list[WorkerReport] = []

    def save_worker_report(self, report: WorkerReport) -> None:
        self.saved.append(report)


def test_a_gpu_that_is_not_used_is_reported_by_a_worker_that_is_ready():
    store = Reports()
    reporter = StatusReporter(store, "w", None)
    reporter.report_ready(Engine("embedded", None, None, (), "cpu", (NOTICE,)), ("any",))
    (report,) = store.saved
    assert (report.state, report.device, report.errors) == ("ready", "cpu", (NOTICE,))
    pool = PoolStatus.from_reports(store.saved * 2)
    assert (pool.state, pool.errors) == ("ready", (NOTICE,))
    reporter.report_ready(Engine("embedded", None, None, (), "cpu"), ("any",))
    assert store.saved[-1].errors == ()
