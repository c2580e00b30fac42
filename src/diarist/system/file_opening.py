"""Opening of files to read, while other processes may rename or remove them.

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
        descriptor = _open_shared(path)
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return descriptor


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _GENERIC_READ = 0x80000000
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

    def _open_shared(path: Path) -> int:
        handle = _kernel32.CreateFileW(
            str(path), _GENERIC_READ, _FILE_SHARE_READ_WRITE_DELETE, None, _OPEN_EXISTING, _FILE_ATTRIBUTE_NORMAL, None
        )
        if handle is None or handle == _INVALID_HANDLE:
            code = ctypes.get_last_error()
            raise OSError(0, ctypes.FormatError(code), str(path), code)  # a subclass, such as FileNotFoundError
        return msvcrt.open_osfhandle(handle, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)
