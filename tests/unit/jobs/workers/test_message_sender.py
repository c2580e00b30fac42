from __future__ import annotations

import os
import threading

import pytest

from diarist.jobs.workers.message_sender import MessageSender

WAIT_S = 20.0


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as output:
        yield output, os.fdopen(writer, "wb")


def test_messages_arrive_in_order(pipe):
    output, writer = pipe
    sender = MessageSender(writer)
    sender.send(b"first\n")
    sender.send(b"second\n")
    sender.start()
    assert [output.readline(), output.readline()] == [b"first\n", b"second\n"]
    sender.close(WAIT_S)
    assert output.read() == b""
    assert writer.closed


def test_equal_messages_that_wait_are_sent_once(pipe):
    output, writer = pipe
    sender = MessageSender(writer)
    for _ in range(3):
        sender.send(b"\n")
    sender.send(b"drain\n")
    sender.start()
    assert [output.readline(), output.readline()] == [b"\n", b"drain\n"]
    sender.close(WAIT_S)
    assert output.read() == b""


def test_nobody_waits_for_a_process_that_reads_nothing(pipe):
    output, writer = pipe
    sender = MessageSender(writer)
    sender.start()
    sender.send(bytes(2**20))  # more than a pipe holds
    done = threading.Event()
    threading.Thread(target=lambda: (sender.send(b"\n"), done.set()), daemon=True).start()
    assert done.wait(WAIT_S)
    output.close()  # the process ends
    sender.close(WAIT_S)
    assert writer.closed


def test_messages_to_a_process_that_has_ended_are_dropped(pipe):
    output, writer = pipe
    output.close()
    sender = MessageSender(writer)
    sender.start()
    sender.send(b"\n")
    sender.close(WAIT_S)
    sender.send(b"\n")
    assert writer.closed


def test_a_pipe_whose_thread_was_not_started_is_closed(pipe):
    sender = MessageSender(pipe[1])
    sender.send(b"\n")
    sender.close(WAIT_S)
    assert pipe[0].read() == b""
