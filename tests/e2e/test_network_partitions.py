"""Workers on hosts of their own, cut off from database and queue while they work, and back again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import pytest

from api.wire import call
from e2e.fleet import Fleet, until
from e2e.network_namespaces import Hosts, NoHosts
from support.servers import Absent, PostgresServer, RedisServer

pytestmark = pytest.mark.slow

LEASE_S = 6.0
WORKERS = ("w1", "w2")


class RedisOfHosts(RedisServer):
    """Answers here and on the bridge, and on no other network that this machine is in."""

    def _command(self, port: int) -> Sequence[str]:
        words = list(super()._command(port))
        words.insert(words.index("--bind") + 1, "127.0.0.1")
        return words


class Network:
    """A service here and a worker on each of two hosts."""

    def __init__(self, folder, stack: ExitStack) -> None:
        self.hosts = Hosts(WORKERS)
        stack.callback(self._remove_hosts)
        center = self.hosts.center
        redis = stack.enter_context(closing(RedisOfHosts(center)))
        postgres = stack.enter_context(closing(PostgresServer(f"127.0.0.1,{center}")))
        # Patience with a host that is gone is minutes by itself, and seconds by what Diarist chooses.
        database_url = postgres.fresh_database().replace("127.0.0.1", center)
        settings = {
            "DATABASE_URL": f"{database_url}?tcp_user_timeout=1000&connect_timeout=2",
            "QUEUE_URL": redis.fresh_url().replace("127.0.0.1", center),
            "MEDIA_URL": folder / "media",
            "JOB_LEASE_S": LEASE_S,
        }
        self.fleet = Fleet(folder, settings)
        stack.callback(self.fleet.close)
        api = self.fleet.start("api", "api")
        self.address = api.address
        self.workers = {name: self.fleet.start_worker(name, self.hosts.run_in(name)) for name in WORKERS}

    def _remove_hosts(self) -> None:
        self.hosts.close()
        assert self.hosts.left() == []

    def logged(self, name: str, words: str) -> int:
        """How many lines of the log of a host have these words."""
        return sum(words in line for line in self.workers[name].log)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            made = Network(tmp_path_factory.mktemp("network"), stack)
        except (NoHosts, Absent) as why:
            pytest.skip(str(why))
        yield made
        for name, process in made.workers.items():  # shown where a test fails
            print(name, *process.log[-40:], sep="\n  ")  # noqa: T201


def test_a_worker_that_is_cut_off_for_a_moment_keeps_its_job(network):
    job = network.fleet.submit(network.address, wait=True)
    job.until_begun()
    name = job.begun[0]
    with network.hosts.cut_off(name):
        until(lambda: network.logged(name, "could not be renewed"), "a renewal that fails")
    job.go()
    assert job.ends(network.address)["attempts"] == 1
    assert job.begun == [name]
    job.delete(network.address)


def test_a_worker_that_is_cut_off_for_long_loses_its_job_to_another_and_works_on_afterwards(network):
    job = network.fleet.submit(network.address, wait=True)
    job.until_begun()
    lost = job.begun[0]
    (other,) = set(WORKERS) - {lost}
    with network.hosts.cut_off(lost):
        job.until_begun(2)
        assert job.begun == [lost, other]
        job.go(other)
        status = job.ends(network.address)
        assert (status["attempts"], status["state"]) == (2, "succeeded")
        before = call(network.address, "GET", f"/v1/jobs/{job.id}/result").body
        # What was cut off comes to its end as well, too late, and cannot say so.
        unsaid = network.logged(lost, "The outcome of the job cannot be stored")
        job.go(lost)
        until(
            lambda: network.logged(lost, "The outcome of the job cannot be stored") > unsaid, "an end that is not heard"
        )
    until(lambda: network.logged(lost, "its transcript is discarded"), "the late result is refused")
    assert job.ask(network.address).json == status
    assert call(network.address, "GET", f"/v1/jobs/{job.id}/result").body == before
    job.delete(network.address)

    assert network.logged(lost, "started as process") == 1, "it is the same process that works on"
    assert network.workers[other].stop(timeout=30) == 0
    after = network.fleet.submit(network.address)
    assert after.ends(network.address)["attempts"] == 1
    assert after.begun == [lost]
    after.delete(network.address)
    assert [path for path in (network.fleet.folder / "media").rglob("*") if path.is_file()] == []
