"""The signals and console events by which a user or the system tells a process to stop.

On Windows, Ctrl-C arrives as SIGINT, and Ctrl-Break and closing the console window as SIGBREAK. SIGHUP does not exist
there, and SIGTERM never arrives. This was not run on a Windows machine.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Sequence

EXIT_SIGNALS: tuple[signal.Signals, ...] = tuple(
    number for name in ("SIGTERM", "SIGBREAK") if (number := getattr(signal, name, None)) is not None
)
"""The signals by which another process, or the console of Windows, asks a process to exit."""


def termination_signals() -> tuple[signal.Signals, ...]:
    """Return ``EXIT_SIGNALS`` and SIGHUP, which means that the terminal was closed.

    SIGHUP is left out if this process ignores it, which is how ``nohup`` lets a process outlive its terminal.
    """
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return EXIT_SIGNALS
    return (*EXIT_SIGNALS, hangup)


def call_on_signals(numbers: Sequence[signal.Signals], callback: Callable[[], object]) -> None:
    """Call ``callback`` in a thread of its own as soon as one of the signals arrives. Call this in the main thread.

    The interpreter runs signal handlers only between two bytecode instructions of the main thread, which may be minutes
    apart in native code. It writes to the wakeup file descriptor at once. On Windows, that can only be a socket.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def receive() -> None:
        with receiver, sender:
            while receiver.recv(1)[0] not in numbers:
                pass
        callback()

    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    threading.Thread(target=receive, name="signals", daemon=True).start()
