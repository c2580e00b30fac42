"""Services and workers as on many machines, over real PostgreSQL, Redis and S3, and the failures they must survive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from api.process import ServiceProcess
from api.wire import FORM, Address, call, recording
from e2e.fleet import Fleet, FleetJob, until

pytestmark = pytest.mark.slow


class Site:
    """A fleet with a service and two workers, and the jobs that a test submitted."""

    def __init__(self, fleet: Fleet, media: Callable[[], list[str]]) -> None:
        self.fleet = fleet
        self.media = media
        self.api = fleet.start("api", "api")
        self.workers = [fleet.start_worker(name) for name in ("w1", "w2")]
        self.submitted: list[FleetJob] = []

    @property
    def address(self) -> Address:
        return self.api.address

    def submit(self, name: str = "", **fields: object) -> FleetJob:
        self.submitted.append(self.fleet.submit(fields.pop("address", self.address), name, **fields))
        return self.submitted[-1]

    def replace(self, dead: ServiceProcess) -> ServiceProcess:
        """Start another machine in place of a dead one."""
        index = self.workers.index(dead)
        self.workers[index] = self.fleet.start_worker(f"{dead.folder.name}x")
        return self.workers[index]

    def remaining_files(self) -> list[str]:
        """The recordings, and the temporary files of every process, that still exist."""
        folders = (each.data for each in self.fleet.processes)
        local = [
            str(path)
            for data in folders
            for path in data.rglob("*")
            if path.is_file() and path.name not in ("service.lock", "keys-exist")
        ]
        return self.media() + local


@pytest.fixture(scope="module")
def in_s3(tmp_path_factory, postgres_server, redis_server, s3_server) -> Iterator[Site]:
    bucket = s3_server.fresh_bucket()
    settings = {name.upper(): value for name, value in s3_server.settings(bucket, "media").items()}

    def media() -> list[str]:
        found = s3_server.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return [each["Key"] for each in found]

    yield from _site(tmp_path_factory.mktemp("s3"), postgres_server, redis_server, settings, media)


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory, postgres_server, redis_server) -> Iterator[Site]:
    shared = tmp_path_factory.mktemp("media")

    def media() -> list[str]:
        return [str(path) for path in shared.rglob("*") if path.is_file()]

    settings = {"MEDIA_URL": shared}
    yield from _site(tmp_path_factory.mktemp("folder"), postgres_server, redis_server, settings, media)


def _site(folder: Path, postgres_server, redis_server, settings, media) -> Iterator[Site]:
    shared = {"DATABASE_URL": postgres_server.fresh_database(), "QUEUE_URL": redis_server.fresh_url(), **settings}
    fleet = Fleet(folder, shared)
    try:
        yield Site(fleet, media)
    finally:
        fleet.close()


@pytest.fixture
def site(in_folder) -> Iterator[Site]:
    """A site where no file of a test's jobs may remain once they are deleted."""
    yield from _checked(in_folder)


@pytest.fixture
def s3_site(in_s3) -> Iterator[Site]:
    yield from _checked(in_s3)


def _checked(site: Site) -> Iterator[Site]:
    site.submitted = []
    seen = {each: len(each.log) for each in site.fleet.processes}
    yield site
    for each in site.fleet.processes:  # shown if the test fails
        print(each.folder.name, *each.log[seen.get(each, 0) :], sep="\n  ")  # noqa: T201
    for job in site.submitted:
        job.go()
        with suppress(AssertionError):
            job.delete(site.address)
    until(lambda: site.remaining_files() == [], f"all files removed, except {site.remaining_files()}")


@pytest.mark.parametrize("kind", ["site", "s3_site"])
def test_jobs_succeed_on_any_worker(kind, request):
    site = request.getfixturevalue(kind)
    held = [site.submit(wait=True) for _ in range(2)]
    for job in held:
        job.until_begun()
    assert {job.begun[0] for job in held} == {each.folder.name for each in site.workers}, "each worker has one"
    jobs = [site.submit() for _ in range(8)]
    assert [job.state(site.address) for job in jobs] == ["queued"] * 8
    for job in held:
        job.go()
    for job in (*held, *jobs):
        assert job.wait(site.address)["attempts"] == 1
        assert len(job.begun) == 1


def test_a_waiting_request_interrupts_a_job_on_another_machine(site):
    long = [site.submit(wait=True) for _ in range(2)]
    for job in long:
        job.until_begun()
    answer = call(site.address, "POST", "/diarize", recording('{"name": "urgent"}'), FORM, 30)
    assert answer.status == 200, answer.body
    assert [job.state(site.address) for job in long] == ["running"] * 2
    for job in long:
        job.go()
        assert job.wait(site.address)["attempts"] == 1


def test_no_job_is_lost_with_a_machine(site):
    held = [site.submit(wait=True) for _ in range(2)]
    for job in held:
        job.until_begun()
    dead = site.workers[0]
    (lost,) = (job for job in held if job.begun == [dead.folder.name])
    (other,) = (job for job in held if job is not lost)
    site.fleet.kill(dead)
    other.go()
    lost.until_begun(2)
    lost.go()
    assert lost.begun == [dead.folder.name, site.workers[1].folder.name]
    assert lost.wait(site.address)["attempts"] == 2
    assert other.wait(site.address)["attempts"] == 1
    site.replace(dead)


def test_a_killed_worker_process_is_replaced_and_its_job_is_retried(site):
    job = site.submit(wait=True)
    job.until_begun()
    machine = next(each for each in site.workers if each.folder.name == job.begun[0])
    started = [line for line in machine.log if "started as process" in line]
    pid = int(started[-1].rpartition(" ")[2])
    os.killpg(pid, signal.SIGKILL)
    job.until_begun(2)
    job.go()
    assert job.wait(site.address)["attempts"] == 2
    until(lambda: sum("is ready on" in line for line in machine.log) == len(started) + 1, "the next worker")


def test_no_job_is_lost_when_redis_loses_its_data(site, redis_server):
    held = [site.submit(wait=True) for _ in range(2)]
    for job in held:
        job.until_begun()
    waiting = [site.submit() for _ in range(3)]
    redis_server.stop(signal.SIGKILL)
    try:
        meanwhile = [site.submit() for _ in range(3)]
        held[0].go()
        for job in (held[0], *waiting, *meanwhile):
            assert job.wait(site.address)["attempts"] == 1
    finally:
        redis_server.start()
        redis_server.restart(lose_data=True)
    held[1].go()
    for job in (held[1], site.submit()):
        assert job.wait(site.address)["attempts"] == 1


def test_the_service_reports_a_missing_database_and_recovers(site, postgres_server):
    held = site.submit(wait=True)
    held.until_begun()
    waiting = site.submit("patient", wait=True)
    postgres_server.stop(signal.SIGQUIT)
    try:
        for method, path, body in (
            ("GET", f"/v1/jobs/{held.id}", None),
            ("POST", "/v1/jobs", recording('{"name": "refused"}')),
        ):
            answer = call(site.address, method, path, body, FORM if body else {}, 60)
            assert (answer.status, answer.json["error"]["code"]) == (503, "store_unavailable"), answer.body
            assert postgres_server.password not in answer.body.decode()
        assert call(site.address, "GET", "/health/live").status == 200
    finally:
        postgres_server.start()
    held.go()
    waiting.go()
    for job in (held, waiting, site.submit()):
        job.wait(site.address)


def test_a_draining_worker_finishes_its_job_and_starts_no_other(site):
    draining = site.fleet.start_worker("draining", QUEUES="nemo", DRAIN_S=60)
    first = site.submit(wait=True, queue="nemo")
    first.until_begun()
    draining.process.send_signal(signal.SIGTERM)
    draining.wait_for("Shutting down")
    second = site.submit(queue="nemo")
    first.go()
    assert draining.wait() == 0
    assert first.wait(site.address)["attempts"] == 1
    assert (second.begun, second.state(site.address)) == ([], "queued")


def test_a_draining_worker_requeues_a_job_that_takes_too_long(site):
    hasty = site.fleet.start_worker("hasty", QUEUES="nemo", DRAIN_S=1)
    job = site.submit(wait=True, queue="nemo")
    job.until_begun()
    assert hasty.stop(timeout=30) == 0
    status = job.status(site.address).json
    assert (status["state"], status["attempts"]) == ("queued", 0), "at once, and not counted as an attempt"
    site.fleet.start_worker("heir", QUEUES="nemo")
    job.until_begun(2)
    job.go()
    assert job.wait(site.address)["attempts"] == 1
    site.fleet.processes[-1].stop()


def test_two_services_share_their_jobs(site):
    other = site.fleet.start("api", "api2")
    held = [site.submit(wait=True), site.submit(wait=True, address=other.address)]
    for job in held:
        job.until_begun()
    assert {job.state(address) for job in held for address in (site.address, other.address)} == {"running"}
    listed = [call(address, "GET", "/v1/jobs").json["data"] for address in (site.address, other.address)]
    assert [each["id"] for each in listed[0]] == [each["id"] for each in listed[1]]
    assert {job.id for job in held} <= {each["id"] for each in listed[0]}
    assert call(other.address, "POST", f"/v1/jobs/{held[0].id}/cancel").status == 200
    assert held[0].state(site.address) == "canceled"
    following = site.submit()
    following.wait(other.address)
    held[1].go()
    held[1].wait(site.address)
    assert other.stop() == 0, "and its jobs remain"
    assert held[1].state(site.address) == "succeeded"
