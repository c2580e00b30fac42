from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from diarist.system import console_signals
from diarist.system.console_signals import EXIT_SIGNALS, call_on_signals, termination_signals


def test_a_process_is_asked_to_exit_by_sigterm_and_by_the_end_of_its_terminal():
    assert EXIT_SIGNALS == (signal.SIGTERM,)
    assert termination_signals() == (signal.SIGTERM, signal.SIGHUP)


def test_without_posix_signals_the_console_event_of_windows_is_left(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)  # stands for it
    program = "import signal; signal.SIGBREAK = signal.SIGUSR2; del signal.SIGHUP\n"
    program += "from diarist.system.console_signals import termination_signals\n"
    program += "print(*(each.name for each in termination_signals()))"
    seen = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert seen.stdout.split() == ["SIGTERM", "SIGUSR2"]


@pytest.fixture
def restored_signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("restored_signals")
def test_a_signal_is_reported_in_another_thread_and_others_are_not():
    called: list[str] = []
    done = threading.Event()

    def callback() -> None:
        called.append(threading.current_thread().name)
        done.set()

    call_on_signals((signal.SIGUSR1,), callback)
    signal.signal(signal.SIGUSR2, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert done.wait(10)
    assert called == ["signals"]
    assert console_signals.signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
