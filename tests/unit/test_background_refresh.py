"""A value that is read for everyone, over a source that can be held up and broken."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from diarist.background_refresh import RefreshingValue
from diarist.errors import StoreUnavailable

PATIENCE_S = 20.0
FOREVER_S = 1e9


class Source:
    """Gives 1, 2, 3 and so on; a gate holds it up, and ``error`` is raised."""

    def __init__(self) -> None:
        self.reads = 0
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.reads += 1
        self.begun.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return self.reads


@pytest.fixture
def source():
    made = Source()
    yield made
    made.open.set()
    for thread in threading.enumerate():
        if thread.name == "numbers":
            thread.join(20)


def test_a_reading_is_shared_until_it_is_too_old(source):
    recent = RefreshingValue("numbers", source)
    assert recent.last is None
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: recent.get(FOREVER_S, PATIENCE_S).value, range(100)))
    assert set(got) == {1}
    assert recent.get(0.0, PATIENCE_S).value == 2
    assert recent.last.value == 2
    assert recent.failing_s == 0


def test_a_reading_that_began_before_it_was_asked_for_may_lack_what_is_new(source):
    recent = RefreshingValue("numbers", source)
    source.open.clear()
    recent.refresh()
    assert source.begun.wait(20)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(recent.get, 0.0, PATIENCE_S)
        source.open.set()
        assert late.result(20).value == 2


def test_a_source_that_hangs_is_asked_once_and_holds_up_nobody(source):
    recent = RefreshingValue("numbers", source)
    assert recent.get(0.0, PATIENCE_S).value == 1
    source.open.clear()
    assert recent.get(0.0, 0.01) is None
    for _ in range(1_000):  # each would take 0.01 s more if it waited
        assert recent.get(0.0, 0.01) is None
    assert source.reads == 2
    assert recent.last.value == 1
    assert recent.failing_s > 0
    source.open.set()
    assert recent.get(0.0, PATIENCE_S).value > 1
    assert recent.failing_s == 0


def test_what_is_raised_is_raised_to_everyone_who_waits(source):
    recent = RefreshingValue("numbers", source)
    source.open.clear()
    source.error = StoreUnavailable("It is away.")
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(recent.get, FOREVER_S, PATIENCE_S) for _ in range(8)]
        assert source.begun.wait(20)
        source.open.set()
        for each in waiting:
            with pytest.raises(StoreUnavailable, match="away"):
                each.result(20)
    assert recent.failing_s > 0
    source.error = None
    assert recent.get(FOREVER_S, PATIENCE_S) is not None
    assert recent.failing_s == 0


def test_a_fault_counts_for_a_while_where_that_is_asked(source):
    recent = RefreshingValue("numbers", source, retry_s=FOREVER_S)
    source.error = StoreUnavailable("It is away.")
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            recent.get(0.0, PATIENCE_S)
    assert source.reads == 1


def test_a_fault_of_the_program_is_logged_even_where_nobody_waits(source, caplog):
    recent = RefreshingValue("numbers", source)
    source.open.clear()
    source.error = ZeroDivisionError("oh")
    assert recent.get(0.0, 0.01) is None
    source.open.set()
    with pytest.raises(ZeroDivisionError):
        recent.get(FOREVER_S, PATIENCE_S)
    assert "The numbers cannot be read" in caplog.text
