"""Opening of files that other processes may rename or remove meanwhile.

POSIX systems allow that for every file. Windows allows it only if the file was opened with ``FILE_SHARE_DELETE``, which
Python does not use. The branches for Windows were not run on a Windows machine.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path


def open_to_read(path: Path) -> int:
    """Open a file, and return a descriptor for reading its bytes, which other processes do not inherit.

    Opening a named pipe does not wait for its writer.

    Raises:
        IsADirectoryError: On Windows, the path is that of a folder. Other systems open it.
        OSError: The file cannot be opened.
    """
    if sys.platform == "win32":
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        descriptor = _open_shared(path, _GENERIC_READ, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return descriptor


def allow_renaming(descriptor: int, path: Path) -> int:
    """Return a descriptor of a file, open for reading and writing, that allows others to rename and remove the file.

    Except on Windows, it is ``descriptor``, which was opened by ``tempfile.mkstemp``. On Windows, that one is closed,
    also after an error.

    Raises:
        OSError: The file cannot be opened again.
    """
    if sys.platform == "win32":
        os.close(descriptor)
        descriptor = _open_shared(path, _GENERIC_READ | _GENERIC_WRITE, os.O_RDWR)
    return descriptor


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _GENERIC_READ = 0x80000000
    _GENERIC_WRITE = 0x40000000
    _FILE_SHARE_READ_WRITE_DELETE = 0x1 | 0x2 | 0x4
    _OPEN_EXISTING = 3
    _FILE_ATTRIBUTE_NORMAL = 0x80
    _INVALID_HANDLE = ctypes.c_void_p(-1).value

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateFileW.restype = wintypes.HANDLE
    _kernel32.CreateFileW.argtypes = (
        *(wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID),
        *(wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE),
    )

    def _open_shared(path: Path, access: int, flags: int) -> int:
        handle = _kernel32.CreateFileW(
            str(path), access, _FILE_SHARE_READ_WRITE_DELETE, None, _OPEN_EXISTING, _FILE_ATTRIBUTE_NORMAL, None
        )
        if handle is None or handle == _INVALID_HANDLE:
            code = ctypes.get_last_error()
            raise OSError(0, ctypes.FormatError(code), str(path), code)  # a subclass, such as FileNotFoundError
        return msvcrt.open_osfhandle(handle, flags | os.O_BINARY | os.O_NOINHERIT)
