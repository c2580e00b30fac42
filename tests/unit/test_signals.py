from __future__ import annotations

import os
import signal
import threading

import pytest

from diarist.signals import stopped_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_and_a_second_one_ends(number):
    before = signal.getsignal(number)
    stop = threading.Event()
    with stopped_by_signals(stop.set):
        os.kill(os.getpid(), number)
        assert stop.wait(10)
        assert {signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)} == {signal.SIG_DFL}
    assert signal.getsignal(number) is before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals(lambda: pytest.fail("stopped")):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with stopped_by_signals(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(10)
    assert seen == [before]
