"""Workers on separate hosts that lose the network to the database and the queue while they work, and get it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import pytest

from api.wire import call
from e2e.fleet import Fleet, until
from e2e.network_namespaces import Hosts, NamespacesUnavailable
from support.servers import Absent, PostgresServer, RedisServer

pytestmark = pytest.mark.slow

LEASE_S = 6.0
WORKERS = ("w1", "w2")


class BridgeRedisServer(RedisServer):
    """Listens on the loopback interface and on the bridge, and on no other network of this machine."""

    def _command(self, port: int) -> Sequence[str]:
        arguments = list(super()._command(port))
        arguments.insert(arguments.index("--bind") + 1, "127.0.0.1")
        return arguments


class Network:
    """A service on this machine, and one worker on each of two hosts."""

    def __init__(self, folder, stack: ExitStack) -> None:
        self.hosts = Hosts(WORKERS)
        stack.callback(self._remove_hosts)
        center = self.hosts.center
        redis = stack.enter_context(closing(BridgeRedisServer(center)))
        postgres = stack.enter_context(closing(PostgresServer(f"127.0.0.1,{center}")))
        # By default, a lost connection is noticed after minutes; Diarist uses seconds.
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
        assert self.hosts.remaining() == []

    def logged(self, name: str, text: str) -> int:
        """The number of lines in the log of a host that contain a text."""
        return sum(text in line for line in self.workers[name].log)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            network = Network(tmp_path_factory.mktemp("network"), stack)
        except (NamespacesUnavailable, Absent) as reason:
            pytest.skip(str(reason))
        yield network
        for name, process in network.workers.items():  # shown if a test fails
            print(name, *process.log[-40:], sep="\n  ")  # noqa: T201


def test_a_short_network_outage_does_not_cost_a_worker_its_job(network):
    job = network.fleet.submit(network.address, wait=True)
    job.until_begun()
    name = job.begun[0]
    with network.hosts.disconnected(name):
        until(lambda: network.logged(name, "could not be renewed"), "a failed renewal")
    job.go()
    assert job.wait(network.address)["attempts"] == 1
    assert job.begun == [name]
    job.delete(network.address)


def test_a_long_network_outage_moves_the_job_to_another_worker(network):
    job = network.fleet.submit(network.address, wait=True)
    job.until_begun()
    lost = job.begun[0]
    (other,) = set(WORKERS) - {lost}
    with network.hosts.disconnected(lost):
        job.until_begun(2)
        assert job.begun == [lost, other]
        job.go(other)
        status = job.wait(network.address)
        assert (status["attempts"], status["state"]) == (2, "succeeded")
        before = call(network.address, "GET", f"/v1/jobs/{job.id}/result").body
        # The disconnected worker finishes the job too, but late, and it cannot store the outcome.
        message = "The outcome of the job cannot be stored"
        logged_before = network.logged(lost, message)
        job.go(lost)
        until(lambda: network.logged(lost, message) > logged_before, "an outcome that cannot be stored")
    until(lambda: network.logged(lost, "its transcript is discarded"), "the late result is rejected")
    assert job.status(network.address).json == status
    assert call(network.address, "GET", f"/v1/jobs/{job.id}/result").body == before
    job.delete(network.address)

    assert network.logged(lost, "started as process") == 1, "the same process goes on"
    assert network.workers[other].stop(timeout=30) == 0
    after = network.fleet.submit(network.address)
    assert after.wait(network.address)["attempts"] == 1
    assert after.begun == [lost]
    after.delete(network.address)
    assert [path for path in (network.fleet.folder / "media").rglob("*") if path.is_file()] == []
