"""Tests of parallel work: results come in order, and nothing runs on after an early stop."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from diarist.engines.embedded.parallel import MAX_WORKERS, Parallelism, ProgressRelay, map_in_order
from diarist.errors import Cancelled

WAIT_S = 30


def streaming():
    return [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_results_come_in_the_order_of_the_tasks(workers, count):
    assert list(map_in_order(lambda task: task * task, range(count), workers)) == [task * task for task in range(count)]
    assert not streaming()


def test_the_first_is_waited_for_though_the_second_is_done():
    second_done = threading.Event()

    def work(task):
        if task == 0:
            assert second_done.wait(WAIT_S)
        if task == 1:
            second_done.set()
        return task

    assert list(map_in_order(work, range(2), 2)) == [0, 1]


def test_two_are_worked_on_at_once():
    both = threading.Barrier(2, timeout=WAIT_S)
    assert len(list(map_in_order(lambda _: both.wait(), range(2), 2))) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_comes_out_in_its_place_and_ends_the_rest(workers):
    done = []

    def work(task):
        done.append(task)
        if task == 3:
            raise KeyError(task)
        return task

    results = []
    with pytest.raises(KeyError), closing(map_in_order(work, range(1000), workers)) as found:
        results.extend(found)
    assert results == [] or results == [0, 1, 2]
    assert len(done) < 20
    assert not streaming()


@pytest.mark.parametrize("workers", [1, 3])
def test_tasks_that_have_not_started_are_dropped_at_an_early_stop(workers):
    begun = []
    with closing(map_in_order(begun.append, range(1000), workers)) as found:
        next(found)
    assert len(begun) <= 2 * workers + 1
    assert not streaming()


def test_tasks_are_only_read_ahead_as_far_as_needed():
    taken = []

    def tasks():
        for task in range(100):
            taken.append(task)
            yield task

    with closing(map_in_order(lambda task: task, tasks(), 3)) as found:
        for count, _ in enumerate(found, 1):
            assert len(taken) <= count + 2 * 3


@pytest.mark.parametrize(
    ("threads", "count", "each"), [(1, 1, 1), (2, 2, 1), (8, 8, 1), (16, MAX_WORKERS, 2), (64, MAX_WORKERS, 8)]
)
def test_threads_are_divided(threads, count, each):
    assert Parallelism.of(threads) == Parallelism(count, each)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_report_in_the_thread_that_waits(workers):
    heard = []
    relay = ProgressRelay(lambda task, done: heard.append((task, done, threading.get_ident())))

    def work(task):
        relay.post(task, 0.5)
        relay.post(task, 1.0)

    list(map_in_order(work, range(5), workers, relay))
    assert {thread for *_, thread in heard} == {threading.get_ident()}
    assert sorted(report[:2] for report in heard) == [(task, done) for task in range(5) for done in (0.5, 1.0)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_a_report_ends_all_workers_at_their_next_report(workers):
    posts = []

    def stop(*_):
        raise Cancelled

    relay = ProgressRelay(stop)

    def work(task):
        for _ in range(1_000_000):
            posts.append(task)
            relay.post(task, 0.5)

    with pytest.raises(Cancelled), closing(map_in_order(work, range(100), workers, relay)) as found:
        list(found)
    assert set(posts) <= {0, 1}
    assert not streaming()
