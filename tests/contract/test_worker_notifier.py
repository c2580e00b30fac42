"""The contract of ``WorkerNotifier``: it wakes the workers of a queue, blocks nobody, and may lose notifications.

Listeners run in processes of their own, as Celery wants it: this file is what they run.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from diarist.jobs.workers.celery_wakeup import CeleryNotifier, NotificationListener
from diarist.jobs.workers.wakeup import LocalNotifier

BUSY_MACHINE_S = 20.0
"""How long a test waits before it fails; how long it took is another question."""


class Hearing:
    """A process that listens to some queues; each wake is one line."""

    def __init__(self, url: str, *queues: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, url, *queues], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.next("ready", 60)

    def next(self, word: str = "woken", timeout: float = BUSY_MACHINE_S) -> float:
        """When the next one came; 0 where none comes in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                said, at = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if said == word:
                return at
        return 0.0

    def silent(self) -> bool:
        """Nothing came until an answer came that was asked for afterwards."""
        self.say("echo")
        said, _ = self._lines.get(timeout=BUSY_MACHINE_S)
        return said == "echo"

    def forget(self) -> None:
        """What came so far."""
        while not self.silent():
            pass

    def stop(self) -> list[str]:
        """The threads that are left in it after it was told to stop."""
        self.say("stop")
        assert self._process.wait(60) == 0
        self._reader.join(10)
        return self._left

    def say(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        self._left: list[str] = ["it did not say"]
        for line in self._process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "left":
                self._left = rest.split()
            self._lines.put((word, time.monotonic()))


@pytest.fixture
def hear() -> Iterator[Callable[..., Hearing]]:
    started: list[Hearing] = []

    def start(url: str, *queues: str) -> Hearing:
        started.append(Hearing(url, *queues))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@contextmanager
def opened(url: str) -> Iterator[CeleryNotifier]:
    announcer = CeleryNotifier(url)
    try:
        yield announcer
    finally:
        announcer.close()


def announce_many(announcer: CeleryNotifier) -> None:
    """So many that a wait for each would take many times as long as a test waits."""

    def notify() -> None:
        for _ in range(1_000):
            announcer.notify("any")

    thread = threading.Thread(target=notify, daemon=True)
    thread.start()
    thread.join(BUSY_MACHINE_S)
    assert not thread.is_alive()


def wakes(announcer: CeleryNotifier, hearing: Hearing, name: str = "any") -> None:
    """Sooner or later: both sides may have to make their connections first."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        announcer.notify(name)
        if hearing.next(timeout=1.0):
            return
    pytest.fail("it is not woken")


def own_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "announcer"}


class TestLocal:
    def test_every_announcement_wakes_the_pool(self):
        class WorkerPool:
            wakes = 0

            def wake(self) -> None:
                self.wakes += 1

        pool = WorkerPool()
        local = LocalNotifier(pool)
        local.notify("any")
        local.notify("gpu")
        local.close()
        assert pool.wakes == 2


class TestCelery:
    def test_everyone_who_serves_a_queue_is_woken_and_no_other(self, redis_server, hear):
        url = redis_server.fresh_url()
        first, second, gpu = hear(url, "any", "cpu"), hear(url, "any"), hear(url, "gpu")
        with opened(url) as announcer:
            for each, name in ((first, "any"), (second, "any"), (gpu, "gpu")):
                wakes(announcer, each, name)
            for each in (first, second, gpu):
                each.forget()
            for _ in range(5):
                announcer.notify("any")
                assert first.next()
                assert second.next()
            assert gpu.silent()
            announcer.notify("gpu")
            assert gpu.next()
            announcer.notify("cpu")
            assert first.next()
            assert second.silent()
            announcer.notify("nobody")
            announcer.notify("any")
            assert second.next()
            assert gpu.silent()
        assert own_threads() == set()
        assert first.stop() == second.stop() == gpu.stop() == []

    def test_nobody_waits_while_redis_is_frozen_and_listeners_are_woken_afterwards(self, redis_server, hear):
        url = redis_server.fresh_url()
        hearing = hear(url, "any")
        with opened(url) as announcer:
            wakes(announcer, hearing)
            with redis_server.frozen():
                announce_many(announcer)
            wakes(announcer, hearing)
            with redis_server.frozen():
                for name in ("any", "cpu", "gpu", "nemo", "embedded"):
                    announcer.notify(name)
                announcer.close()  # which must not wait until it thaws
            _gone(announcer)

    def test_nobody_waits_while_redis_is_dead_and_its_data_may_be_lost(self, redis_server, hear):
        url = redis_server.fresh_url()
        hearing = hear(url, "any")
        with opened(url) as announcer:
            wakes(announcer, hearing)
            redis_server.stop(signal.SIGKILL)
            try:
                with opened(url) as another:
                    another.notify("any")
                announce_many(announcer)
            finally:
                redis_server.start()
                redis_server.restart(lose_data=True)
            wakes(announcer, hearing)
        _gone(announcer)
        assert hearing.stop() == []

    def test_a_listener_that_has_ended_of_a_fault_listens_again(self, redis_server, hear):
        url = redis_server.fresh_url()
        hearing = hear(url, "any")
        with opened(url) as announcer:
            wakes(announcer, hearing)
            hearing.say("end")
            assert hearing.next("ended")
            wakes(announcer, hearing)
        assert hearing.stop() == []

    def test_nothing_piles_up_where_nobody_listens(self, redis_server, hear):
        url = redis_server.fresh_url()
        with redis.Redis.from_url(url) as client, opened(url) as announcer:
            gone = hear(url, "any")
            gone.kill()
            announcer.notify("any")
            for step in range(10_000):
                announcer.notify(("any", "cpu", "gpu")[step % 3])
            live = hear(url, "last")
            wakes(announcer, live, "last")  # all the others were sent before
            assert live.stop() == []
            keys = client.keys()
            assert len(keys) < 20, keys
            assert sum(client.memory_usage(key) or 0 for key in keys) < 20_000
            assert all(client.type(key) != b"list" for key in keys)


def _gone(announcer: CeleryNotifier) -> None:
    announcer._thread.join(BUSY_MACHINE_S)
    assert not announcer._thread.is_alive()


def _listen(url: str, *queues: str) -> None:
    saying = threading.Lock()

    def say(*words: str) -> None:
        with saying:
            print(*words, flush=True)  # noqa: T201

    before = set(threading.enumerate())
    listener = NotificationListener(url, queues, lambda: say("woken"))
    listener.start()
    assert listener.wait_until_ready(60)
    say("ready")
    for line in sys.stdin:
        if line == "stop\n":
            break
        if line == "end\n":  # as if of a fault in Celery: it was not the listener that was stopped
            listener._controller.stop()
            say("ended")
        else:
            say("echo")
    listener.stop()
    say("left", *(thread.name.replace(" ", "-") for thread in threading.enumerate() if thread not in before))


if __name__ == "__main__":
    _listen(*sys.argv[1:])
