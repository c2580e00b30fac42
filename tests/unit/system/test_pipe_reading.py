"""Pipes are read with a time limit: by ``poll``, and by a thread as on systems without it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diarist.system import pipe_reading
from diarist.system.pipe_reading import read_pipe

LONG_S = 30.0


@pytest.fixture(params=[True, False], ids=["poll", "thread"], autouse=True)
def nothing_is_left(request, monkeypatch):
    """No thread and no descriptor more than before."""
    monkeypatch.setattr(pipe_reading, "_HAS_POLL", request.param)
    before = used()
    yield
    assert used() == before


def used() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def read(reader, size: int, timeout_s: float = LONG_S) -> bytes | None:
    buffer = bytearray(size)
    count = reader.read_into(memoryview(buffer), timeout_s)
    return None if count is None else bytes(buffer[:count])


def test_what_is_there_is_read_and_then_the_end():
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as pipe:
        reader = read_pipe(pipe)
        os.write(sink, b"spoken")
        assert read(reader, 4) == b"spok"
        assert read(reader, 4) == b"en"
        os.close(sink)
        assert [read(reader, 4), read(reader, 4)] == [b"", b""]
        reader.close()


def test_the_wait_ends_at_the_time_limit():
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as pipe:
        reader = read_pipe(pipe)
        start = time.monotonic()
        assert read(reader, 4, 0.05) is None
        assert 0.04 < time.monotonic() - start < LONG_S
        os.write(sink, b"late")
        assert read(reader, 4) == b"late"
        os.close(sink)
        reader.close()


def test_all_bytes_arrive_in_their_order():
    content = bytes(range(256)) * 16_384
    program = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 16384)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        reader = read_pipe(process.stdout)
        received = bytearray()
        while block := read(reader, 100_000):
            received += block
        reader.close()
    assert received == content


def test_reading_stops_while_more_arrives():
    program = "import os\nwhile True: os.write(1, bytes(65536))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        reader = read_pipe(process.stdout)
        assert read(reader, 10) == bytes(10)
        process.kill()
        process.wait()
        reader.close()


def test_a_reader_that_was_not_used_is_closed():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        read_pipe(process.stdout).close()
