"""Values that a background thread reads, from a source that can hang and fail."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from diarist.background_refresh import RefreshingValue
from diarist.errors import StoreUnavailable

TIMEOUT_S = 20.0
FOREVER_S = 1e9


class Source:
    """Returns 1, 2, 3 and so on. While ``open`` is not set it hangs; if ``error`` is set it is raised."""

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


def test_a_value_is_shared_until_it_is_too_old(source):
    value = RefreshingValue("numbers", source)
    assert value.last is None
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: value.get(FOREVER_S, TIMEOUT_S).value, range(100)))
    assert set(got) == {1}
    assert value.get(0.0, TIMEOUT_S).value == 2
    assert value.last.value == 2
    assert value.failing_s == 0


def test_a_read_that_started_before_the_request_does_not_count(source):
    value = RefreshingValue("numbers", source)
    source.open.clear()
    value.refresh()
    assert source.begun.wait(20)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(value.get, 0.0, TIMEOUT_S)
        source.open.set()
        assert late.result(20).value == 2


def test_a_source_that_hangs_is_read_once_and_blocks_nobody(source):
    value = RefreshingValue("numbers", source)
    assert value.get(0.0, TIMEOUT_S).value == 1
    source.open.clear()
    assert value.get(0.0, 0.01) is None
    for _ in range(1_000):  # each would take 0.01 s more if it waited
        assert value.get(0.0, 0.01) is None
    assert source.reads == 2
    assert value.last.value == 1
    assert value.failing_s > 0
    source.open.set()
    assert value.get(0.0, TIMEOUT_S).value > 1
    assert value.failing_s == 0


def test_an_error_is_raised_to_all_waiting_callers(source):
    value = RefreshingValue("numbers", source)
    source.open.clear()
    source.error = StoreUnavailable("It is away.")
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(value.get, FOREVER_S, TIMEOUT_S) for _ in range(8)]
        assert source.begun.wait(20)
        source.open.set()
        for each in waiting:
            with pytest.raises(StoreUnavailable, match="away"):
                each.result(20)
    assert value.failing_s > 0
    source.error = None
    assert value.get(FOREVER_S, TIMEOUT_S) is not None
    assert value.failing_s == 0


def test_an_error_is_repeated_for_the_retry_time(source):
    value = RefreshingValue("numbers", source, retry_s=FOREVER_S)
    source.error = StoreUnavailable("It is away.")
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            value.get(0.0, TIMEOUT_S)
    assert source.reads == 1


def test_a_programming_error_is_logged_even_if_nobody_waits(source, caplog):
    value = RefreshingValue("numbers", source)
    source.open.clear()
    source.error = ZeroDivisionError("oh")
    assert value.get(0.0, 0.01) is None
    source.open.set()
    with pytest.raises(ZeroDivisionError):
        value.get(FOREVER_S, TIMEOUT_S)
    assert "Reading the numbers failed" in caplog.text
