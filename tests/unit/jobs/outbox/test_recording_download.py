from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diarist.errors import Cancelled, StorageFull, StoreUnavailable, UrlUnusable
from diarist.jobs.db.database import Database
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import FETCH, OutboxStore, OutboxTask
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.media.factory import open_media
from diarist.jobs.model import Job, JobKind, JobSpec, JobState, new_job_id
from diarist.jobs.outbox.recording_download import DownloadHandler
from diarist.scratch import DOWNLOAD_PREFIX
from diarist.settings import Settings
from support.job_stores import Clock, tasks_of
from support.loopback_site import NETWORK, Answer, LoopbackSite, serving

RECORDING = b"RIFF" + bytes(range(256)) * 400


@dataclass
class Bench:
    settings: Settings
    clock: Clock
    store: SqlJobStore
    outbox: OutboxStore
    media: DirectoryMedia
    handler: DownloadHandler
    announced: list[str] = field(default_factory=list)
    notes: list[tuple[str, str, float]] = field(default_factory=list)

    def job(self, url: str | None, **spec: object) -> Job:
        asked = JobSpec(kind=JobKind.JOB, request_id="r-1", source_url=url, **spec)
        job = Job(new_job_id(), JobState.QUEUED, asked, self.clock.now, ready=False, recording=False)
        return self.store.create(job)

    def claim(self) -> OutboxTask:
        task = self.outbox.claim("runner", 30.0, (FETCH,))
        assert task is not None
        return task

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        self.handler.run(self.claim(), check)

    @property
    def temp_files(self) -> list[Path]:
        return list(self.settings.temp_dir.iterdir()) if self.settings.temp_dir.exists() else []

    @property
    def in_media(self) -> list[Path]:
        return [path for path in self.settings.media_dir.rglob("*") if path.is_file()]

    def nothing_is_left(self) -> bool:
        return not self.temp_files and not list(self.settings.media_dir.rglob("*"))


@pytest.fixture
def site() -> Iterator[LoopbackSite]:
    with serving() as site:
        yield site


@pytest.fixture
def make_bench(make_settings, tmp_path) -> Iterator[Callable[..., Bench]]:
    databases: list[Database] = []

    def make(*, media: object = None, **overrides: object) -> Bench:
        settings = make_settings(**{"allowed_networks": NETWORK, **overrides})
        clock = Clock()
        database = Database(open_sqlite(tmp_path / "jobs.sqlite3"), clock)
        databases.append(database)
        store, outbox = SqlJobStore(database), OutboxStore(database)
        kept = media(settings) if media else open_media(settings)
        announced: list[str] = []
        notes: list[tuple[str, str, float]] = []
        handler = DownloadHandler(
            settings, store, kept, outbox, announced.append, report_progress=lambda *note: notes.append(note)
        )
        return Bench(settings, clock, store, outbox, kept, handler, announced, notes)

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()


def test_a_recording_is_fetched_kept_and_its_job_can_be_claimed(bench, site):
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/calls/Monday%20call.mp3?key=1"), queue="gpu")
    assert bench.store.claim("w", 30.0, 3) is None, "not before the recording is there"
    bench.run()
    claimed = bench.store.claim("w", 30.0, 3)
    assert (claimed.id, claimed.size_bytes, claimed.spec.filename) == (job.id, len(RECORDING), "Monday call.mp3")
    assert claimed.recording
    with bench.media.local_recording(job.id) as path:
        assert path.read_bytes() == RECORDING
        assert path.stat().st_mode & 0o077 == 0
    assert bench.announced == ["gpu"]
    assert tasks_of(bench.store, job.id) == []
    assert bench.temp_files == []
    assert (job.id, "download", 1.0) in bench.notes


def test_a_runner_that_lost_its_task_fails_nothing(bench, site, monkeypatch):
    """It stood still for longer than its lease, and another process fetched the recording meanwhile."""
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    mine = bench.claim()
    bench.clock.advance(60)

    def stand_still(*_: object, **__: object) -> None:
        monkeypatch.undo()
        bench.run()
        raise UrlUnusable("The connection of the one that stood still was cut.")

    monkeypatch.setattr("diarist.jobs.outbox.recording_download.fetch", stand_still)
    bench.handler.run(mine, lambda: None)
    kept = bench.store.get(job.id)
    assert (kept.state, kept.ready, kept.error) == (JobState.QUEUED, True, None)
    assert tasks_of(bench.store, job.id) == []


def test_a_recording_that_another_process_is_at_is_not_given_up_for_it(bench, site, monkeypatch):
    job = bench.job(site.url("/x"))
    mine = bench.claim()
    bench.clock.advance(60)
    theirs = bench.outbox.claim("another runner", 30.0, (FETCH,))

    def refuse(*_: object, **__: object) -> None:
        raise UrlUnusable("Not for me.")

    monkeypatch.setattr("diarist.jobs.outbox.recording_download.fetch", refuse)
    bench.handler.run(mine, lambda: None)
    assert bench.store.get(job.id).state is JobState.QUEUED
    bench.handler.run(theirs, lambda: None)
    assert bench.store.get(job.id).state is JobState.FAILED


def test_the_callers_own_file_name_stays(bench, site):
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x.mp3"), filename="mine.mp3")
    bench.run()
    assert bench.store.get(job.id).spec.filename == "mine.mp3"


@pytest.mark.parametrize(
    ("answer", "code"),
    [(Answer(404), "url_unusable"), (Answer(200), "url_unusable"), (Answer(body=bytes(2**20 + 1)), "upload_too_large"),
     (Answer(302, headers={"Location": "file:///etc/passwd"}), "url_refused")],
)  # fmt: skip
def test_a_fault_of_the_callers_fails_the_job_at_once(make_bench, site, answer, code):
    bench = make_bench(max_upload_mb=1)
    site.plan = [answer]
    job = bench.job(site.url("/x"))
    bench.run()
    failed = bench.store.get(job.id)
    assert (failed.state, failed.error.code) == (JobState.FAILED, code)
    assert len(site.asked) == 1
    assert not bench.outbox.any_due((FETCH,))
    assert bench.nothing_is_left()


def test_no_private_network_is_asked(make_bench, site):
    bench = make_bench(allowed_networks="")
    job = bench.job(site.url("/x"))
    bench.run()
    assert bench.store.get(job.id).error.code == "url_refused"
    assert site.asked == []


def test_a_server_that_fails_is_asked_again_later_each_time_later(make_bench, site):
    bench = make_bench(job_attempts=3, job_retry_s=10.0)
    site.plan = [Answer(503), Answer(500), Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    for delay_s in (10.0, 30.0):
        bench.run()
        assert bench.store.get(job.id).state is JobState.QUEUED
        bench.clock.advance(delay_s - 0.1)
        assert not bench.outbox.any_due((FETCH,))
        bench.clock.advance(0.2)
    bench.run()
    assert bench.store.get(job.id).ready


def test_a_server_that_goes_on_failing_fails_the_job_with_words(make_bench, site):
    bench = make_bench(job_attempts=2, job_retry_s=0.0)
    site.plan = [Answer(503)]
    job = bench.job(site.url("/x"))
    bench.run()
    bench.run()
    error = bench.store.get(job.id).error
    assert error.code == "url_unreachable"
    assert error.message.endswith("There were 2 attempts.")
    assert not bench.outbox.any_due((FETCH,))
    assert bench.nothing_is_left()


def test_a_full_disk_is_no_fault_of_the_callers(make_bench, site):
    bench = make_bench(min_free_mb=2**20, job_retry_s=5.0)
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    bench.run()
    assert bench.store.get(job.id).state is JobState.QUEUED
    assert site.asked == [], "it is looked before anything is asked for"
    bench.clock.advance(5)
    assert bench.outbox.any_due((FETCH,))


class FullMedia(DirectoryMedia):
    def store_recording(self, job_id, upload, limit_bytes):
        raise StorageFull("The disk is full. Free some space.")


def test_a_disk_that_runs_full_in_the_end_leaves_nothing(make_bench, site):
    bench = make_bench(media=lambda settings: FullMedia(settings.media_dir), job_retry_s=5.0)
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    bench.run()
    assert bench.store.get(job.id).state is JobState.QUEUED
    assert bench.nothing_is_left()


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_job_that_is_stopped_meanwhile_stops_the_download(bench, site, how):
    site.plan = [Answer(body=RECORDING, gate=threading.Event())]  # which nobody sets
    job = bench.job(site.url("/x"))
    thread = threading.Thread(target=bench.run)
    thread.start()
    assert site.began.acquire(timeout=20)
    assert bench.temp_files, "it is under way"
    getattr(bench.store, how)(job.id)
    thread.join(20)
    assert not thread.is_alive()
    assert bench.nothing_is_left()
    assert not bench.outbox.any_due((FETCH,))
    assert bench.announced == []


def test_whoever_runs_it_can_stop_it(bench, site):
    site.plan = [Answer(body=RECORDING, gate=threading.Event())]
    job = bench.job(site.url("/x"))
    stopping = threading.Event()

    def check() -> None:
        if stopping.is_set():
            raise Cancelled("The service is stopping.")

    seen: list[BaseException] = []

    def run() -> None:
        try:
            bench.run(check)
        except Cancelled as error:
            seen.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert site.began.acquire(timeout=20)
    stopping.set()
    thread.join(20)
    assert len(seen) == 1
    assert bench.nothing_is_left()
    assert bench.store.get(job.id).state is JobState.QUEUED


class Interrupted(DirectoryMedia):
    """Somebody does ``meanwhile`` to the job right after its recording was stored."""

    meanwhile: Callable[[str], object]

    def store_recording(self, job_id, upload, limit_bytes):
        size_bytes = super().store_recording(job_id, upload, limit_bytes)
        self.meanwhile(job_id)
        return size_bytes


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_job_that_is_stopped_at_the_last_moment_leaves_no_recording(make_bench, site, how):
    bench = make_bench(media=lambda settings: Interrupted(settings.media_dir))
    bench.media.meanwhile = getattr(bench.store, how)
    site.plan = [Answer(body=RECORDING)]
    bench.job(site.url("/x"))
    bench.run()
    assert bench.nothing_is_left()
    assert bench.announced == []


def test_another_who_was_faster_keeps_the_recording_that_is_worked_on(make_bench, site):
    """After a lease that ran out there may be two: the slower one must not take the recording away."""
    bench = make_bench(media=lambda settings: Interrupted(settings.media_dir))

    def other(job_id: str) -> None:
        assert bench.store.attach_recording(job_id, len(RECORDING), "x")
        assert bench.store.claim("w", 30.0, 3).id == job_id

    bench.media.meanwhile = other
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    bench.run()
    assert bench.store.get(job.id).state is JobState.RUNNING
    with bench.media.local_recording(job.id) as path:
        assert path.read_bytes() == RECORDING


@pytest.mark.parametrize("state", ["canceled", "deleted", "there"])
def test_nothing_is_asked_for_where_nobody_waits(bench, site, state):
    job = bench.job(site.url("/x"))
    task = bench.claim()
    # what one that was killed had stored already
    (bench.settings.media_dir / job.id).mkdir(parents=True)
    (bench.settings.media_dir / job.id / "recording").write_bytes(RECORDING)
    if state == "canceled":
        bench.store.cancel(job.id)
    elif state == "deleted":
        with bench.store.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM jobs")
    else:
        bench.store.attach_recording(job.id, 1, "x")
    bench.handler.run(task, lambda: None)
    assert site.asked == []
    assert bench.outbox.complete(task) is False, "it is done"
    assert bool(bench.in_media) == (state == "there")


def test_a_store_that_does_not_answer_does_not_end_a_download(bench, site, monkeypatch):
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    real, calls = bench.store.get, []

    def get(job_id: str) -> Job:
        calls.append(job_id)
        if len(calls) == 2:
            raise StoreUnavailable("The job store is locked.")
        return real(job_id)

    def note(*_: object) -> None:
        notes.append(1)
        raise StoreUnavailable("The job store is locked.")

    notes: list[int] = []
    monkeypatch.setattr(bench.store, "get", get)
    monkeypatch.setattr(bench.handler, "_report_progress", note)
    bench.run()
    assert len(calls) > 2
    assert notes
    assert real(job.id).ready


def test_a_fault_that_nobody_thought_of_is_tried_again_and_then_fails_the_job(make_bench):
    bench = make_bench(job_attempts=2, job_retry_s=0.0)
    job = bench.job("https://example.com/x")
    bench.handler.failed(bench.claim(), RuntimeError("a secret path"))
    assert bench.store.get(job.id).state is JobState.QUEUED
    bench.handler.failed(bench.claim(), RuntimeError("a secret path"))
    error = bench.store.get(job.id).error
    assert error.code == "job_failed"
    assert "secret" not in error.message
    assert not bench.outbox.any_due((FETCH,))


def test_one_that_is_to_be_given_up_fails_the_job(bench):
    job = bench.job("https://example.com/x")
    bench.handler.failed(bench.claim(), RuntimeError(), last=True)
    assert bench.store.get(job.id).state is JobState.FAILED
    gone = replace(bench.job("https://example.com/y"))
    task = bench.claim()
    bench.store.delete(gone.id)
    bench.handler.failed(task, RuntimeError())


def test_a_recording_goes_on_to_s3(make_bench, site, s3_server):
    bench = make_bench(**s3_server.settings(s3_server.fresh_bucket()))
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    bench.run()
    assert bench.store.get(job.id).ready
    with bench.media.local_recording(job.id) as path:
        assert path.read_bytes() == RECORDING
    assert bench.temp_files == []
    bench.media.close()


def test_a_job_that_is_canceled_on_the_way_to_s3_leaves_nothing_there(make_bench, site, s3_server):
    bench = make_bench(**s3_server.settings(s3_server.fresh_bucket()))
    site.plan = [Answer(body=RECORDING)]
    job = bench.job(site.url("/x"))
    looks: list[JobState] = []

    def check() -> None:
        if bench.temp_files and bench.temp_files[0].stat().st_size == len(RECORDING):
            looks.append(bench.store.get(job.id).state)
        if len(looks) == 3:  # the end of the download, before it is stored, the first piece of that
            bench.store.cancel(job.id)

    bench.run(check)
    assert looks == [JobState.QUEUED] * 3
    assert bench.media.job_ids() == frozenset()
    assert bench.temp_files == []
    assert not bench.outbox.any_due((FETCH,))
    bench.media.close()


KILLED = """
import sys
from diarist.jobs.db.database import open_database
from diarist.jobs.db.outbox import OutboxStore
from diarist.jobs.outbox.recording_download import DownloadHandler
from diarist.jobs.media.factory import open_media
from diarist.jobs.db.job_store import SqlJobStore
from diarist.scratch import DOWNLOAD_PREFIX
from diarist.settings import load_settings

settings = load_settings(data_dir=sys.argv[1], min_free_mb=0, allowed_networks="127.0.0.0/8")
database = open_database(settings)
outbox = OutboxStore(database)
handler = DownloadHandler(settings, SqlJobStore(database), open_media(settings), outbox, print)
handler.run(outbox.claim("doomed", 30.0, ("fetch",)), lambda: None)
"""


def test_a_process_that_is_killed_in_the_middle_has_its_task_done_by_another(make_settings, site, until):
    from diarist.jobs.db.database import open_database
    from diarist.jobs.retention import Sweeper

    settings = make_settings(allowed_networks=NETWORK)
    database = open_database(settings)
    try:
        store, outbox, media = SqlJobStore(database), OutboxStore(database), open_media(settings)
        site.plan = [Answer(body=RECORDING, gate=threading.Event()), Answer(body=RECORDING)]
        spec = JobSpec(kind=JobKind.JOB, source_url=site.url("/x"))
        job = Job(new_job_id(), JobState.QUEUED, spec, datetime.now(UTC), ready=False, recording=False)
        store.create(job)
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(settings.data_dir)])
        try:
            assert site.began.acquire(timeout=60)
            (left,) = settings.temp_dir.iterdir()
            assert left.name.startswith(DOWNLOAD_PREFIX)
            sweeper = Sweeper(settings, database, store, media)
            late = datetime.now(UTC) + timedelta(seconds=settings.retain_temp_s + 60)
            sweeper.sweep_once(late)
            assert left.exists(), "a file in use is not swept, however old"
        finally:
            child.kill()
            child.wait()
        assert outbox.release() == 1
        task = outbox.claim("r", 30.0, (FETCH,))
        assert (task.attempts, task.worker_crashes) == (1, 1)
        DownloadHandler(settings, store, media, outbox, lambda _: None).run(task, lambda: None)
        assert store.get(job.id).ready
        sweeper.sweep_once(late)
        assert list(settings.temp_dir.iterdir()) == []
        with media.local_recording(job.id) as path:
            assert path.read_bytes() == RECORDING
    finally:
        database.close()
