"""Options and measurements of sockets that differ between operating systems."""

from __future__ import annotations

import socket
import sys
from array import array
from contextlib import suppress

_SO_NWRITE = 0x1024
"""``SO_NWRITE`` of macOS (``sys/socket.h``): the number of bytes in the send buffer. Python does not name it."""


def unsent_bytes(connection: socket.socket) -> int:
    """Return how much of what was sent the peer has not acknowledged, or 0 on systems that do not tell.

    Windows does not tell. The branch for macOS was not run on a Mac.
    """
    number = array("i", [0])
    with suppress(OSError, ImportError):
        if sys.platform == "darwin":
            number[0] = connection.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
        elif sys.platform != "win32":
            import fcntl
            import termios

            fcntl.ioctl(connection, termios.TIOCOUTQ, number)
    return number[0]


def claim_address(listener: socket.socket) -> None:
    """Let a socket listen on an address that no other program listens on, even right after such a program has ended.

    On Windows, SO_REUSEADDR would let two programs listen on the same address. Without SO_EXCLUSIVEADDRUSE, another one
    that sets SO_REUSEADDR could take the connections over. That branch was not run on a Windows machine.
    """
    if sys.platform == "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
