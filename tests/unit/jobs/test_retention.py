from __future__ import annotations

import fcntl
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from diarist import scratch
from diarist.errors import MediaUnavailable, StoreUnavailable
from diarist.jobs.db.database import Database, open_database, utc_now
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.outbox import OutboxStore
from diarist.jobs.db.schema import metadata
from diarist.jobs.db.secure_delete import erase_deleted
from diarist.jobs.db.sqlite import open_sqlite
from diarist.jobs.media.base import MediaStore
from diarist.jobs.media.factory import open_media
from diarist.jobs.model import Job, JobError, JobKind, JobSpec, JobState, new_job_id
from diarist.jobs.retention import Sweeper, SweepResult
from diarist.outbound.webhooks import DeliveryResult
from diarist.settings import Settings
from diarist.types import Diarization, Span, Transcript, Utterance, Word

OTHER_TABLES = {"schema_version", "metrics", "owners", "api_keys", "secrets", "workers"}
"""Those that hold nothing of a job."""

DATABASE_FILES = {"jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"}
DAY_S = 86_400.0


def transcript(said: str = "hello") -> Transcript:
    utterance = Utterance((Word(said, Span(0.0, 1.0), "SPEAKER_00", 1.0, 1.0),))
    return Transcript(
        utterances=(utterance,),
        diarization=Diarization(),
        duration=1.0,
        language="en",
        language_probability=1.0,
        engine="test",
        timings=(),
    )


@dataclass
class Bench:
    settings: Settings
    database: Database
    store: SqlJobStore
    outbox: OutboxStore
    media: MediaStore
    sweeper: Sweeper

    def new_sweeper(self, store: SqlJobStore | None = None) -> Sweeper:
        """Of another process."""
        return Sweeper(self.settings, self.database, store or self.store, self.media)

    def job(self, kind: JobKind = JobKind.JOB, **changes: object) -> Job:
        """Queued, with a recording."""
        spec = JobSpec(kind=kind, request_id="r-1", **changes)
        job = Job(new_job_id(), JobState.QUEUED, spec, utc_now(), size_bytes=9)
        self.media.store_recording(job.id, io.BytesIO(b"recording"), 100)
        return self.store.create(job)

    def claim(self, worker: str = "w") -> Job:
        job = self.store.claim(worker, 600.0, 3)
        assert job is not None
        return job

    def succeeded(self, said: str = "hello", **changes: object) -> Job:
        job = self.job(**changes)
        assert self.claim().id == job.id
        self.media.store_part(job.id, "samples", b"samples")
        assert self.store.finalize(job.id, "w", 0, transcript(said).utterances)
        assert self.store.finish(job.id, "w", transcript(said))
        return job

    def has(self, job: Job) -> bool:
        return job.id in self.media.job_ids()

    def rows(self) -> dict[str, int]:
        with self.database.reading() as connection:
            counts = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in metadata.sorted_tables
                if table.name not in OTHER_TABLES
            }
        return {name: count for name, count in counts.items() if count}

    def files(self) -> set[str]:
        """All below DATA_DIR, folders too where something is in them."""
        root = self.settings.data_dir
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or any(path.iterdir())}

    def says(self, words: str) -> bool:
        """Whether any file below DATA_DIR has these words in it."""
        return any(words.encode() in path.read_bytes() for path in self.settings.data_dir.rglob("*") if path.is_file())


def later(seconds: float) -> datetime:
    return utc_now() + timedelta(seconds=seconds)


@pytest.fixture
def make_bench(make_settings) -> Iterator[Callable[..., Bench]]:
    databases: list[Database] = []

    def make(**overrides: object) -> Bench:
        settings = make_settings(**overrides)
        database = open_database(settings)
        databases.append(database)
        store, media = SqlJobStore(database), open_media(settings)
        settings.temp_dir.mkdir(parents=True)
        return Bench(settings, database, store, OutboxStore(database), media, Sweeper(settings, database, store, media))

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()


KILLED = """
import sys
from pathlib import Path
from diarist.api.upload import UploadFile
from diarist.audio.samples import SampleBuffer
from diarist.jobs.model import new_job_id
from diarist.jobs.media.factory import open_media
from diarist.jobs.db.job_store import open_store
from diarist.settings import load_settings
import numpy as np

settings = load_settings(data_dir=sys.argv[1], min_free_mb=0)
store, media = open_store(settings), open_media(settings)
job = store.claim("doomed", 600.0, 3)
media.store_part(job.id, "samples", b"samples")
samples = SampleBuffer(0, 10, settings.temp_dir)
samples.append(np.zeros(100, dtype=np.float32))
arriving = UploadFile(settings.temp_dir, 1_000)
arriving.write(b"half of it")

class Stuck:
    def __init__(self):
        self.first = True
    def read(self, size=-1):
        if self.first:
            self.first = False
            return b"half of it"
        print("in the middle of everything", flush=True)
        sys.stdin.read()

media.store_recording(new_job_id(), Stuck(), 1_000)
"""


def kill_in_the_middle(bench: Bench) -> None:
    """A process dies that works on a job, receives an upload and stores another one."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(bench.settings.data_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "in the middle of everything\n"
    finally:
        child.kill()
        child.communicate()


class BrokenOff:
    def __init__(self) -> None:
        self.pieces = [b"half of it"]

    def read(self, size: int = -1) -> bytes:
        if not self.pieces:
            raise ConnectionResetError
        return self.pieces.pop()


def drive_through_every_end(bench: Bench) -> None:
    bench.succeeded(webhook_url="https://example.com/", labels=(("case", "7"),))
    bench.outbox.record_delivery(
        bench.outbox.claim("r", 30.0, ("webhook",)), DeliveryResult(500, 0.1, "It failed."), 30.0
    )
    failed = bench.job(webhook_url="https://example.com/")
    bench.claim()
    bench.store.fail(failed.id, "w", JobError("not_audio", "Send audio."))
    bench.store.cancel(bench.job().id)
    running = bench.job()
    bench.claim()
    bench.media.store_part(running.id, "samples", b"samples")
    bench.store.cancel(running.id)
    deleted = bench.job()
    bench.claim()
    bench.media.store_part(deleted.id, "samples", b"samples")
    bench.store.delete(deleted.id)  # and the process is killed before it removes the recording
    bench.job()
    kill_in_the_middle(bench)
    assert bench.store.release("doomed", 1)
    abandoned_requests = bench.job(JobKind.REQUEST)
    bench.store.extend_caller_lease(abandoned_requests.id, -1.0)
    half_way = bench.job(JobKind.REQUEST)
    bench.claim()
    bench.store.extend_caller_lease(half_way.id, -1.0)
    with pytest.raises(ConnectionResetError):
        bench.media.store_recording(new_job_id(), BrokenOff(), 1_000)
    url = JobSpec(kind=JobKind.JOB, source_url="https://example.com/x", webhook_url="https://example.com/")
    to_fetch = Job(new_job_id(), JobState.QUEUED, url, utc_now(), ready=False, recording=False)
    bench.store.cancel(bench.store.create(to_fetch).id)


def test_after_every_end_nothing_is_left_but_the_database(bench):
    drive_through_every_end(bench)
    assert bench.rows() and bench.files() > DATABASE_FILES  # noqa: PT018
    swept = bench.sweeper.sweep_once()
    assert swept.requests == 2
    assert (swept.recordings, swept.jobs, swept.orphans) == (0, 0, 0), "nothing is old enough yet"
    assert swept.files == 3, "parts of what has ended are of no more use"
    bench.sweeper.sweep_once(later(1.5 * DAY_S))
    assert bench.store.count_by_state()[JobState.SUCCEEDED] == 1, "results are kept for longer than recordings"
    assert bench.files() <= DATABASE_FILES
    bench.sweeper.sweep_once(later(8 * DAY_S))
    assert bench.rows() == {}
    assert bench.files() <= DATABASE_FILES


def test_a_sweep_that_is_the_only_one_after_all_is_over_leaves_only_what_may_be_arriving(bench):
    """A process that starts after a long time has never seen the strays: they go when they have been seen a while."""
    drive_through_every_end(bench)
    sweeper = bench.new_sweeper()
    sweeper.sweep_once(later(8 * DAY_S))
    assert bench.rows() == {}
    sweeper.sweep_once(later(8 * DAY_S + bench.settings.retain_temp_s))
    assert bench.files() <= DATABASE_FILES


class Arriving:
    """An upload that stops in the middle until it may go on."""

    def __init__(self) -> None:
        self.pieces = [b"the end", b"the beginning, "]
        self.half = threading.Event()
        self.go_on = threading.Event()

    def read(self, size: int = -1) -> bytes:
        if len(self.pieces) == 1:
            self.half.set()
            assert self.go_on.wait(30)
        return self.pieces.pop() if self.pieces else b""


def test_nothing_that_is_in_use_is_ever_removed(bench):
    ended = bench.succeeded()
    bench.media.remove_parts(ended.id)
    running = bench.job()
    bench.claim()
    bench.media.store_part(running.id, "samples", b"samples")
    waiting = bench.job()
    attended = bench.job(JobKind.REQUEST)
    bench.store.extend_caller_lease(attended.id, 600.0)
    just_uploaded = bench.settings.temp_dir / f"{scratch.UPLOAD_PREFIX}1"
    just_uploaded.write_bytes(b"x")
    locked = bench.settings.temp_dir / f"{scratch.DOWNLOAD_PREFIX}1"
    locked.write_bytes(b"x")
    os.utime(locked, (0, 0))
    stream, arriving_id = Arriving(), new_job_id()
    thread = threading.Thread(target=bench.media.store_recording, args=(arriving_id, stream, 1_000))
    thread.start()
    with locked.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert stream.half.wait(30)
        for number in range(5):
            assert not bench.sweeper.sweep_once(later(number * bench.settings.retain_temp_s / 5))
        stream.go_on.set()
        thread.join()
    with bench.media.local_recording(arriving_id) as path:
        assert path.read_bytes() == b"the beginning, the end"
    assert bench.media.read_part(running.id, "samples") == b"samples"
    for job in (ended, running, waiting, attended):
        with bench.media.local_recording(job.id) as path:
            assert path.read_bytes() == b"recording"
    assert just_uploaded.exists()
    assert locked.exists()
    assert bench.new_sweeper().sweep_once().files == 1, "it was let go of"
    assert not locked.exists()


def test_however_long_a_job_waits_or_runs_its_recording_stays(bench):
    waiting, running = bench.job(), bench.job()
    bench.claim()
    for days in (0, 10, 20):
        assert not bench.sweeper.sweep_once(later(days * DAY_S))
    assert bench.has(waiting)
    assert bench.has(running)


def test_a_recording_goes_before_its_result(make_bench):
    bench = make_bench(retain_recording_s=100.0, retain_result_s=1_000.0)
    job = bench.succeeded()
    assert bench.sweeper.sweep_once(later(99)) == SweepResult(files=1)
    assert bench.sweeper.sweep_once(later(101)) == SweepResult(recordings=1)
    assert not bench.has(job)
    assert bench.store.get(job.id).recording is False
    assert bench.store.get_transcript(job.id).utterances
    assert not bench.sweeper.sweep_once(later(999))
    assert bench.sweeper.sweep_once(later(1_001)) == SweepResult(jobs=1)
    assert bench.rows() == {}


def test_no_recording_is_kept_where_that_is_what_is_asked_for(make_bench):
    bench = make_bench(retain_recording_s=0.0)
    job = bench.succeeded()
    assert bench.sweeper.sweep_once(later(0.01)).recordings == 1
    assert not bench.has(job)


def test_a_recording_without_a_job_goes_after_a_while_unless_its_job_comes(bench):
    stray, early = new_job_id(), new_job_id()
    for job_id in (stray, early):
        bench.media.store_recording(job_id, io.BytesIO(b"recording"), 100)
    retain_s = bench.settings.retain_temp_s
    assert not bench.sweeper.sweep_once(later(0))
    assert not bench.sweeper.sweep_once(later(retain_s - 1))
    bench.store.create(Job(early, JobState.QUEUED, JobSpec(kind=JobKind.JOB), utc_now()))
    assert bench.sweeper.sweep_once(later(2 * retain_s)) == SweepResult(orphans=1)
    assert bench.media.job_ids() == {early}


def test_only_our_files_go_from_a_folder_that_somebody_chose(make_bench, tmp_path):
    bench = make_bench(temp_audio_dir=tmp_path / "shared")
    names = ("diarist-upload-1", "diarist-fetch-1", "somebody-elses", "diarist-something")
    for name in names:
        (bench.settings.temp_dir / name).write_bytes(b"x")
        os.utime(bench.settings.temp_dir / name, (0, 0))
    assert bench.sweeper.sweep_once().files == 2
    assert {path.name for path in bench.settings.temp_dir.iterdir()} == set(names[2:])


def test_young_files_and_links_stay_in_the_folder_that_is_ours(bench, tmp_path):
    young, old, elsewhere = bench.settings.temp_dir / "young", bench.settings.temp_dir / "old", tmp_path / "elsewhere"
    for path in (young, old, elsewhere):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    os.utime(elsewhere, (0, 0))
    link = bench.settings.temp_dir / "link"
    link.symlink_to(elsewhere)
    assert bench.sweeper.sweep_once().files == 1
    assert young.exists()
    assert elsewhere.exists()
    assert not old.exists()


class Died(BaseException):
    """The process is killed here."""


class DyingStore(SqlJobStore):
    def mark_recording_removed(self, job_id: str) -> None:
        raise Died

    delete = mark_recording_removed


class DyingMedia:
    def __init__(self, media: MediaStore) -> None:
        self._media = media

    def __getattr__(self, name: str) -> object:
        return getattr(self._media, name)

    def remove(self, job_id: str) -> None:
        raise Died


@pytest.mark.parametrize("step", ["store", "media"])
@pytest.mark.parametrize("what", ["recordings", "jobs", "requests"])
def test_what_is_half_removed_is_found_by_the_next_sweep(bench, what, step):
    if what == "requests":
        bench.store.extend_caller_lease(bench.job(JobKind.REQUEST).id, -1.0)
    else:
        bench.succeeded()
    at = {"recordings": 1.5, "jobs": 8.0, "requests": 0.0}[what] * DAY_S
    dying = Sweeper(
        bench.settings, bench.database, DyingStore(bench.database) if step == "store" else bench.store,
        DyingMedia(bench.media) if step == "media" else bench.media,
    )  # fmt: skip
    with pytest.raises(Died):
        dying.sweep_once(later(at))
    for moment in (at, at + bench.settings.retain_temp_s + 1):
        bench.sweeper.sweep_once(later(moment))
    assert bench.media.job_ids() == frozenset()
    assert bool(bench.rows()) == (what == "recordings")


def test_what_cannot_be_removed_keeps_nothing_else_and_is_told_of(bench, caplog, monkeypatch):
    jobs = [bench.succeeded() for _ in range(3)]
    real = bench.media.remove

    def remove(job_id: str) -> None:
        if job_id == jobs[0].id:
            raise MediaUnavailable("It cannot be removed. Let its owner do it.")
        real(job_id)

    monkeypatch.setattr(bench.media, "remove", remove)
    with caplog.at_level(logging.WARNING, logger="diarist"):
        assert bench.sweeper.sweep_once(later(1.5 * DAY_S)).recordings == 2
    assert "It cannot be removed." in caplog.text
    assert [bench.store.get(job.id).recording for job in jobs] == [True, False, False]
    monkeypatch.undo()
    assert bench.sweeper.sweep_once(later(1.5 * DAY_S)).recordings == 1


def test_one_store_that_fails_does_not_keep_the_rest(bench, caplog, monkeypatch):
    old = bench.settings.temp_dir / "old"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("The job store is locked.")

    for name in ("list_ended_before", "list_abandoned_requests"):
        monkeypatch.setattr(bench.store, name, fail)
    with caplog.at_level(logging.WARNING, logger="diarist"):
        assert bench.sweeper.sweep_once() == SweepResult(files=1)
    assert caplog.text.count("The job store is locked.") == 3


def test_several_sweep_at_once_without_harm(bench, caplog):
    for _ in range(20):
        bench.succeeded()
    sweepers = [bench.new_sweeper() for _ in range(4)]
    gate = threading.Barrier(len(sweepers))

    def sweep(sweeper: Sweeper) -> None:
        gate.wait(30)
        sweeper.sweep_once(later(8 * DAY_S))

    threads = [threading.Thread(target=sweep, args=(sweeper,)) for sweeper in sweepers]
    with caplog.at_level(logging.WARNING, logger="diarist"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bench.rows() == {}
    assert bench.media.job_ids() == frozenset()
    assert caplog.text == ""


def test_the_log_says_what_went_in_one_line(bench, caplog):
    bench.media.remove_parts(bench.succeeded().id)
    with caplog.at_level(logging.INFO, logger="diarist.jobs.retention"):
        bench.sweeper.sweep_once()
        assert caplog.records == []
        bench.sweeper.sweep_once(later(1.5 * DAY_S))
    assert [record.message.split(",")[0] for record in caplog.records] == ["Removed 1 recordings"]


def test_it_sweeps_by_itself_and_survives_what_nobody_thought_of(make_bench, until, monkeypatch, caplog):
    bench = make_bench(sweep_every_s=0.1, retain_recording_s=0.0)
    calls: list[int] = []
    real = bench.store.list_abandoned_requests

    def abandoned_requests() -> tuple[str, ...]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("nobody thought of it")
        return real()

    monkeypatch.setattr(bench.store, "list_abandoned_requests", abandoned_requests)
    job = bench.succeeded()
    bench.sweeper.start()
    try:
        until(lambda: len(calls) >= 3 and not bench.has(job))
    finally:
        bench.sweeper.stop()
    assert not bench.sweeper._thread.is_alive()
    assert caplog.text.count("nobody thought of it") >= 1
    bench.new_sweeper().stop()


WORDS = "unmistakable-words-of-somebody"


def test_deleted_words_are_on_the_disk_no_more(bench):
    jobs = [bench.succeeded(f"{WORDS}-{number} " * 300, filename=f"{WORDS}.mp3") for number in range(5)]
    assert bench.says(WORDS)
    for job in jobs:
        bench.store.delete(job.id)
        bench.media.remove(job.id)
    assert bench.says(WORDS), "the write-ahead log has them still"
    assert erase_deleted(bench.database)
    assert not bench.says(WORDS)


def test_a_sweep_erases_what_somebody_else_deleted(bench):
    bench.store.delete(bench.succeeded(WORDS).id)
    assert bench.says(WORDS)
    bench.sweeper.sweep_once()
    assert not bench.says(WORDS)


def test_while_somebody_reads_deleted_words_stay_and_go_the_next_time(bench, monkeypatch):
    monkeypatch.setattr("diarist.jobs.db.secure_delete.MAX_WAIT_S", 0.05)
    job = bench.succeeded(WORDS)
    with bench.database.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM jobs").all()
        bench.store.delete(job.id)
        assert erase_deleted(bench.database) is False
    assert erase_deleted(bench.database)
    assert not bench.says(WORDS)


@pytest.mark.slow
def test_when_many_are_deleted_at_once_no_word_is_left(bench, until):
    """Others read and fold the log meanwhile, for which SQLite makes nobody wait."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            bench.store.claim("other", 30.0, 3, ("nemo",))
            bench.store.count_by_state()

    others = [threading.Thread(target=look) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for turn in range(20):
            words = f"{WORDS}{turn}"
            jobs = [bench.succeeded(f"{words} " * 300) for _ in range(3)]

            def delete(job: Job) -> None:
                bench.store.delete(job.id)
                assert erase_deleted(bench.database)

            with ThreadPoolExecutor(3) as pool:
                list(pool.map(delete, jobs))
            assert not bench.says(words), turn
    finally:
        over.set()
        for other in others:
            other.join()


def test_others_wait_for_a_lock_as_long_as_before(bench):
    erase_deleted(bench.database)
    with bench.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000


def test_a_log_that_cannot_be_folded_is_told_of(bench, caplog, monkeypatch):
    bench.succeeded(WORDS)
    other = Database(open_sqlite(bench.settings.data_dir / "jobs.sqlite3"))
    monkeypatch.setattr("diarist.jobs.db.secure_delete.MAX_WAIT_S", 0.05)
    try:
        with other.writing(), caplog.at_level(logging.WARNING, logger="diarist"):
            assert erase_deleted(bench.database) is False
    finally:
        other.close()
    assert erase_deleted(bench.database)


def test_the_sweep_works_on_postgresql(make_settings, postgres_server, tmp_path):
    settings = make_settings(database_url=postgres_server.fresh_database())
    database = open_database(settings)
    try:
        store, media = SqlJobStore(database), open_media(settings)
        bench = Bench(
            settings, database, store, OutboxStore(database), media, Sweeper(settings, database, store, media)
        )
        kept = bench.job()
        for _ in range(3):
            assert bench.claim().id == kept.id
            bench.store.requeue(kept.id, "w")
        bench.store.cancel(bench.job().id)
        bench.media.store_recording(new_job_id(), io.BytesIO(b"stray"), 100)
        assert not bench.sweeper.sweep_once()
        assert bench.sweeper.sweep_once(later(8 * DAY_S)) == SweepResult(recordings=1, jobs=1, orphans=1)
        assert bench.media.job_ids() == {kept.id}
    finally:
        database.close()
