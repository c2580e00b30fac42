"""Services and workers as on many machines, over real PostgreSQL, Redis and S3: what may die, and what must hold."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from api.process import ServiceProcess
from api.wire import FORM, Address, call, recording
from e2e.fleet import Fleet, Work, until

pytestmark = pytest.mark.slow


class Site:
    """A fleet with a service and two workers, and the jobs that a test made."""

    def __init__(self, fleet: Fleet, media: Callable[[], list[str]]) -> None:
        self.fleet = fleet
        self.media = media
        self.api = fleet.start("api", "api")
        self.workers = [fleet.start_worker(name) for name in ("w1", "w2")]
        self.made: list[Work] = []

    @property
    def address(self) -> Address:
        return self.api.address

    def submit(self, name: str = "", **asked: object) -> Work:
        self.made.append(self.fleet.submit(asked.pop("address", self.address), name, **asked))
        return self.made[-1]

    def replace(self, dead: ServiceProcess) -> ServiceProcess:
        """Another machine in the place of one that is gone."""
        place = self.workers.index(dead)
        self.workers[place] = self.fleet.start_worker(f"{dead.folder.name}x")
        return self.workers[place]

    def left(self) -> list[str]:
        """Recordings, and temporary files of every process."""
        folders = (each.data for each in self.fleet.processes)
        ours = [
            str(path) for data in folders for path in data.rglob("*") if path.is_file() and path.name != "service.lock"
        ]
        return self.media() + ours


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
    """Nothing may be left of a test's jobs once they are deleted."""
    yield from _cleared(in_folder)


@pytest.fixture
def s3_site(in_s3) -> Iterator[Site]:
    yield from _cleared(in_s3)


def _cleared(site: Site) -> Iterator[Site]:
    site.made = []
    seen = {each: len(each.log) for each in site.fleet.processes}
    yield site
    for each in site.fleet.processes:  # shown where the test fails
        print(each.folder.name, *each.log[seen.get(each, 0) :], sep="\n  ")  # noqa: T201
    for work in site.made:
        work.go()
        with suppress(AssertionError):
            work.delete(site.address)
    until(lambda: site.left() == [], f"nothing is left, but there is {site.left()}")


@pytest.mark.parametrize("kind", ["site", "s3_site"])
def test_jobs_end_right_whoever_does_them(kind, request):
    site = request.getfixturevalue(kind)
    held = [site.submit(wait=True) for _ in range(2)]
    for work in held:
        work.until_begun()
    assert {work.begun[0] for work in held} == {each.folder.name for each in site.workers}, "each has one"
    jobs = [site.submit() for _ in range(8)]
    assert [job.state(site.address) for job in jobs] == ["queued"] * 8
    for work in held:
        work.go()
    for work in (*held, *jobs):
        assert work.ends(site.address)["attempts"] == 1
        assert len(work.begun) == 1


def test_a_caller_who_waits_is_served_by_a_worker_elsewhere(site):
    long = [site.submit(wait=True) for _ in range(2)]
    for work in long:
        work.until_begun()
    answer = call(site.address, "POST", "/diarize", recording('{"name": "urgent"}'), FORM, 30)
    assert answer.status == 200, answer.body
    assert [work.state(site.address) for work in long] == ["running"] * 2
    for work in long:
        work.go()
        assert work.ends(site.address)["attempts"] == 1


def test_a_machine_that_is_gone_loses_no_job(site):
    held = [site.submit(wait=True) for _ in range(2)]
    for work in held:
        work.until_begun()
    dead = site.workers[0]
    (lost,) = (work for work in held if work.begun == [dead.folder.name])
    (other,) = (work for work in held if work is not lost)
    site.fleet.kill(dead)
    other.go()
    lost.until_begun(2)
    lost.go()
    assert lost.begun == [dead.folder.name, site.workers[1].folder.name]
    assert lost.ends(site.address)["attempts"] == 2
    assert other.ends(site.address)["attempts"] == 1
    site.replace(dead)


def test_a_worker_process_that_is_killed_is_replaced_and_its_job_taken_up(site):
    work = site.submit(wait=True)
    work.until_begun()
    machine = next(each for each in site.workers if each.folder.name == work.begun[0])
    started = [line for line in machine.log if "started as process" in line]
    pid = int(started[-1].rpartition(" ")[2])
    os.killpg(pid, signal.SIGKILL)
    work.until_begun(2)
    work.go()
    assert work.ends(site.address)["attempts"] == 2
    until(lambda: sum("is ready on" in line for line in machine.log) == len(started) + 1, "the next worker")


def test_redis_that_loses_its_data_loses_no_job(site, redis_server):
    held = [site.submit(wait=True) for _ in range(2)]
    for work in held:
        work.until_begun()
    waiting = [site.submit() for _ in range(3)]
    redis_server.stop(signal.SIGKILL)
    try:
        meanwhile = [site.submit() for _ in range(3)]
        held[0].go()
        for work in (held[0], *waiting, *meanwhile):
            assert work.ends(site.address)["attempts"] == 1
    finally:
        redis_server.start()
        redis_server.restart(lose_data=True)
    held[1].go()
    for work in (held[1], site.submit()):
        assert work.ends(site.address)["attempts"] == 1


def test_without_its_database_the_service_says_so_and_goes_on_after(site, postgres_server):
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
    for work in (held, waiting, site.submit()):
        work.ends(site.address)


def test_a_worker_that_is_told_to_leave_finishes_what_it_has_and_begins_nothing(site):
    leaving = site.fleet.start_worker("leaving", QUEUES="nemo", DRAIN_S=60)
    first = site.submit(wait=True, queue="nemo")
    first.until_begun()
    leaving.process.send_signal(signal.SIGTERM)
    leaving.wait_for("Shutting down")
    second = site.submit(queue="nemo")
    first.go()
    assert leaving.wait() == 0
    assert first.ends(site.address)["attempts"] == 1
    assert (second.begun, second.state(site.address)) == ([], "queued")


def test_a_worker_that_cannot_finish_in_time_gives_back_what_it_has(site):
    hasty = site.fleet.start_worker("hasty", QUEUES="nemo", DRAIN_S=1)
    work = site.submit(wait=True, queue="nemo")
    work.until_begun()
    assert hasty.stop(timeout=30) == 0
    status = work.ask(site.address).json
    assert (status["state"], status["attempts"]) == ("queued", 0), "at once, and not charged to it"
    site.fleet.start_worker("heir", QUEUES="nemo")
    work.until_begun(2)
    work.go()
    assert work.ends(site.address)["attempts"] == 1
    site.fleet.processes[-1].stop()


def test_jobs_of_one_service_are_those_of_the_other(site):
    other = site.fleet.start("api", "api2")
    held = [site.submit(wait=True), site.submit(wait=True, address=other.address)]
    for work in held:
        work.until_begun()
    assert {work.state(address) for work in held for address in (site.address, other.address)} == {"running"}
    listed = [call(address, "GET", "/v1/jobs").json["data"] for address in (site.address, other.address)]
    assert [each["id"] for each in listed[0]] == [each["id"] for each in listed[1]]
    assert {work.id for work in held} <= {each["id"] for each in listed[0]}
    assert call(other.address, "POST", f"/v1/jobs/{held[0].id}/cancel").status == 200
    assert held[0].state(site.address) == "canceled"
    following = site.submit()
    following.ends(other.address)
    held[1].go()
    held[1].ends(site.address)
    assert other.stop() == 0, "and the jobs stay"
    assert held[1].state(site.address) == "succeeded"
