from __future__ import annotations

import io
import logging
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import pytest

from diarist.errors import QueueFull, ServiceError, StorageFull, StoreUnavailable, UploadTooLarge
from diarist.jobs.db.database import utc_now
from diarist.jobs.db.job_store import open_store
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.model import Job, JobError, JobKind, JobSpec, JobState, Limits, WorkerReport, new_job_id
from diarist.jobs.service import JobService
from diarist.jobs.startup_recovery import recover_jobs
from diarist.types import Diarization, SpeakerHints, TranscribeOptions, Transcript

SILENCE = Transcript(
    utterances=(),
    diarization=Diarization(),
    duration=1.0,
    language=None,
    language_probability=None,
    engine="test",
    timings=(),
)


@pytest.fixture
def still(make_bench):
    """A bench whose service was not started: no worker takes a job."""
    return make_bench(start=False, max_waiting=2, max_upload_mb=1)


def test_the_queue_has_an_end_and_a_place_that_comes_free_is_taken(still):
    first = still.submit("one")
    still.submit("two")
    assert still.counts() == (2, 0)
    for refused in (still.service.check_capacity, lambda: still.submit("three")):
        with pytest.raises(QueueFull, match="2 recordings wait"):
            refused()
    assert len(list(still.settings.media_dir.iterdir())) == 2
    still.service.delete(first.id)
    still.submit("three")


def test_uploads_that_arrive_at_once_share_the_places(still):
    outcomes: list[type] = []
    barrier = threading.Barrier(8)

    def send() -> None:
        barrier.wait(10)
        try:
            still.submit("said")
            outcomes.append(Job)
        except QueueFull as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(kind.__name__ for kind in outcomes) == ["Job"] * 2 + ["QueueFull"] * 6
    assert len(list(still.settings.media_dir.iterdir())) == 2


def test_a_recording_takes_one_place_while_it_is_noted(still, monkeypatch):
    create = still.store.create
    with ThreadPoolExecutor(1) as pool:
        asked: list[Future[None]] = []

        def create_and_be_asked(job: Job, limits: Limits | None = None, caller_lease_s: float | None = None) -> Job:
            create(job, limits, caller_lease_s)
            asked.append(pool.submit(still.service.check_capacity))
            wait(asked, timeout=0.5)
            return job

        monkeypatch.setattr(still.store, "create", create_and_be_asked)
        still.submit("one")
        asked[0].result(10)  # there are two places


def test_an_upload_that_is_too_large_leaves_nothing_and_frees_its_place(still):
    for _ in range(3):
        with pytest.raises(UploadTooLarge):
            still.submit("x" * (2**20 + 1))
    assert still.counts() == (0, 0)
    assert list(still.settings.media_dir.iterdir()) == []
    still.submit("x" * 2**20)


def test_a_disk_without_room_is_told_as_such(make_bench):
    still = make_bench(start=False, min_free_mb=2**20)
    for refused in (still.service.check_capacity, lambda: still.submit("said")):
        with pytest.raises(StorageFull, match="MIN_FREE_MB"):
            refused()
    assert list(still.settings.media_dir.iterdir()) == []


def test_a_file_is_taken_over_with_its_options(still, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(b"said")
    options = TranscribeOptions(SpeakerHints(num_speakers=3), "fr")
    job = still.service.submit(upload, JobSpec(options, "talk.wav", "r-9"))
    assert not upload.exists()
    kept = still.service.store.get(job.id)
    assert (kept.spec.options, kept.spec.request_id, kept.size_bytes) == (options, "r-9", 4)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0b", "\ud800", "x" * 5_000, "\r\nforged", "", "-i.wav"])
def test_a_filename_is_only_ever_a_text(still, name):
    job = still.submit("said", filename=name)
    kept = still.service.store.get(job.id)
    assert len(kept.spec.filename) <= 255
    assert not set(kept.spec.filename) & set("\0\r\n/\\")
    assert [entry.name for entry in still.settings.media_dir.iterdir()] == [job.id]


def test_a_service_that_was_never_started_can_be_stopped(still):
    still.service.stop()
    still.service.stop()


def test_a_result_before_the_end_is_refused(still):
    job = still.submit("said")
    with pytest.raises(ServiceError, match="not ended"):
        still.service.result(job.id)
    assert still.service.wait(job.id, 0.05).state is JobState.QUEUED


def test_waiters_wake_when_their_job_is_canceled(still):
    job = still.submit("said")
    ended: list[JobState] = []
    waiter = threading.Thread(target=lambda: ended.append(still.service.wait(job.id, 20).state))
    waiter.start()
    still.service.cancel(job.id)
    waiter.join(10)
    assert ended == [JobState.CANCELED]


def test_a_store_that_fails_leaves_no_recording(still, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(still.store, "create", refuse)
    with pytest.raises(StoreUnavailable):
        still.submit("said")
    assert list(still.settings.media_dir.iterdir()) == []


@pytest.mark.parametrize("kind", JobKind)
def test_a_deletion_that_the_store_refuses_deletes_nothing_that_can_be_asked_for(still, monkeypatch, kind):
    job = still.submit("said", kind=kind)
    recording = still.settings.media_dir / job.id / "recording"

    def refuse(job_id: str) -> None:
        raise StorageFull("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(still.store, "delete", refuse)
        with pytest.raises(StorageFull):
            still.service.delete(job.id)
    assert still.store.get(job.id).id == job.id
    assert recording.exists() is (kind is JobKind.JOB)
    still.service.delete(job.id)
    assert list(still.settings.media_dir.iterdir()) == []


def test_a_deletion_that_was_stored_all_the_same_is_one(still, monkeypatch):
    job = still.submit("said", kind=JobKind.JOB)
    delete = still.store.delete

    def lose_connection(job_id: str) -> None:
        delete(job_id)
        raise StoreUnavailable("The connection was lost after the commit.")

    monkeypatch.setattr(still.store, "delete", lose_connection)
    still.service.delete(job.id)
    assert list(still.settings.media_dir.iterdir()) == []


def test_a_store_that_cannot_be_read_shows_in_the_report(still):
    still.store.close()
    path = still.settings.data_dir / "jobs.sqlite3"
    path.write_bytes(b"damage" * 1_000)
    report = still.service.pool_status()
    assert report.state == "error"
    assert report.errors == (StoreUnavailable.default_public,)
    for name in ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"):
        (still.settings.data_dir / name).unlink(missing_ok=True)


def fill(settings, kind: JobKind) -> list[str]:
    """What a service leaves that was killed: one in each state, a folder without a row, a row without a folder."""
    store, media = open_store(settings), DirectoryMedia(settings.media_dir)
    ids = [new_job_id() for _ in range(4)]
    for job_id in ids:
        store.create(Job(job_id, JobState.QUEUED, JobSpec(kind=kind), datetime.now(UTC)))
    for job_id in (*ids[:3], new_job_id()):
        media.store_recording(job_id, io.BytesIO(b"said"), 10)
    store.claim("dead", 3_600, 3)
    store.finish(ids[0], "dead", SILENCE)
    store.claim("dead", 3_600, 3)
    store.fail(ids[1], "dead", JobError("job_failed", "why"))
    store.claim("dead", 3_600, 3)
    store.save_worker_report(WorkerReport("dead", 1, "ready", (), (), datetime.now(UTC)))
    store.close()
    settings.temp_dir.mkdir()
    (settings.temp_dir / "half an upload").touch()
    return ids


def test_a_start_forgets_the_requests_of_an_earlier_run_and_says_so(settings, caplog):
    fill(settings, JobKind.REQUEST)
    store, media = open_store(settings), DirectoryMedia(settings.media_dir)
    recover_jobs(settings, store, media)
    assert (store.list_unfinished(), store.list_requests(), store.list_worker_reports()) == ((), (), ())
    assert media.job_ids() == frozenset()
    assert list(settings.temp_dir.iterdir()) == []
    assert "4 requests without a caller, 4 recordings without a job" in caplog.text
    caplog.clear()
    recover_jobs(settings, store, media)
    assert caplog.records == []
    store.close()


def test_a_start_takes_up_the_jobs_of_an_earlier_run_and_keeps_their_results(settings, caplog):
    done, failed, begun, waiting = fill(settings, JobKind.JOB)
    store, media = open_store(settings), DirectoryMedia(settings.media_dir)
    with caplog.at_level(logging.INFO):
        recover_jobs(settings, store, media)
    assert [job.id for job in store.list_unfinished()] == [begun, waiting]
    assert {job.state for job in store.list_unfinished()} == {JobState.QUEUED}
    assert store.get(begun).service_crashes == 1
    assert store.get(begun).worker_crashes == 0
    assert store.get_transcript(done).duration == SILENCE.duration
    assert store.get(failed).error == JobError("job_failed", "why")
    assert media.job_ids() == {done, failed, begun}
    assert store.list_worker_reports() == ()
    assert "Resuming 2 jobs of an earlier run" in caplog.text
    store.close()


def test_a_temporary_folder_that_was_chosen_is_not_cleared(make_settings, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "somebody else's").touch()
    settings = make_settings(temp_audio_dir=shared)
    store = open_store(settings)
    recover_jobs(settings, store, DirectoryMedia(settings.media_dir))
    assert (shared / "somebody else's").exists()
    store.close()


def test_a_folder_that_cannot_be_removed_is_told_and_does_not_stop_the_answer(still, caplog, monkeypatch):
    job = still.submit("said")

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    caplog.set_level(logging.WARNING)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", refuse)
        still.service.delete(job.id)
    assert "cannot be removed" in caplog.text


def lose_the_answer(store, monkeypatch) -> None:
    """The connection is cut when a new job was kept, before that is known."""
    create = store.create

    def create_and_be_cut_off(*given: object, **named: object) -> Job:
        create(*given, **named)
        raise StoreUnavailable("cut off")

    monkeypatch.setattr(store, "create", create_and_be_cut_off)


@pytest.mark.parametrize("kind", JobKind)
def test_a_job_that_was_kept_though_the_answer_was_lost_is_taken(make_bench, monkeypatch, kind):
    bench = make_bench()
    lose_the_answer(bench.store, monkeypatch)
    job = bench.submit("said", kind=kind)
    assert bench.service.wait(job.id, 20).state is JobState.SUCCEEDED


def test_while_nobody_knows_whether_a_job_was_kept_its_recording_stays(still, monkeypatch):
    lose_the_answer(still.store, monkeypatch)
    get = still.store.get

    def be_away(job_id: str) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(still.store, "get", be_away)
    with pytest.raises(StoreUnavailable, match="cut off"):
        still.submit("said", kind=JobKind.JOB)
    monkeypatch.setattr(still.store, "get", get)
    (job,) = still.store.list_unfinished()
    assert [entry.name for entry in still.settings.media_dir.iterdir()] == [job.id]


def test_clocks_of_the_machine_and_of_the_store_need_not_agree(make_bench, until):
    bench = make_bench()
    bench.store.database._clock = lambda: utc_now() + timedelta(hours=1)
    request = bench.submit("wait go")
    bench.until_begun()
    assert bench.store.list_abandoned_requests() == ()
    bench.tell("go")
    assert bench.service.wait(request.id, 20).state is JobState.SUCCEEDED


def test_a_job_that_has_just_come_has_its_place(still):
    first, second, third = (still.submit("said", kind=JobKind.JOB) for _ in range(3))
    assert [still.service.queue_positions.get(job.id) for job in (first, second, third)] == [1, 2, 3]
    still.service.cancel(first.id)
    assert still.service.queue_positions.get(still.submit("said", kind=JobKind.JOB).id) == 3
    assert still.service.queue_positions.get(second.id) == 1


def test_an_id_that_was_chosen_before_says_whether_a_job_is_new(still):
    spec = JobSpec(kind=JobKind.JOB, idempotency_key="k", fingerprint="f", request_id="the same")
    ids = [new_job_id() for _ in range(2)]
    assert [still.service.submit(io.BytesIO(b"said"), spec, None, job_id).id for job_id in ids] == [ids[0]] * 2


def test_a_running_job_of_a_worker_that_never_said_anything_is_taken_up_too(settings):
    store, media = open_store(settings), DirectoryMedia(settings.media_dir)
    job = store.create(Job(new_job_id(), JobState.QUEUED, JobSpec(kind=JobKind.JOB), datetime.now(UTC)))
    store.claim("unheard of", 3_600.0, 3)
    recover_jobs(settings, store, media)
    assert (store.get(job.id).state, store.get(job.id).service_crashes) == (JobState.QUEUED, 1)
    store.close()


def test_a_store_that_hangs_on_one_caller_holds_up_the_others_for_a_bounded_time(
    settings, postgres_server, monkeypatch
):
    monkeypatch.setattr("diarist.jobs.admission.STORE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("diarist.jobs.queue_positions.STORE_TIMEOUT_S", 0.2)
    store = open_store(settings.model_copy(update={"database_url": postgres_server.fresh_database()}))
    service = JobService(settings, store)
    try:
        assert service.queue_positions.get("a-job") is None
        with ThreadPoolExecutor(8) as pool, postgres_server.frozen():
            for ask in (service.check_capacity, lambda: service.queue_positions.get("a-job")):
                asked = [pool.submit(ask) for _ in range(4)]
                answered = wait(asked, 20, return_when=FIRST_COMPLETED).done
                assert answered
                assert all(isinstance(each.exception(), StoreUnavailable) for each in answered)
    finally:
        service.stop()
        for thread in threading.enumerate():
            if thread.name == "positions":
                thread.join(20)
        store.close()
