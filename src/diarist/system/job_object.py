"""Job objects of Windows, which limit processes and end them together.

The functions of this module exist only on Windows, and were not run on a Windows machine: only the layout of the
structures is tested. It follows the reference of the Windows API (``winnt.h``,
``JOBOBJECT_EXTENDED_LIMIT_INFORMATION``), with types whose sizes are the same on every system.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_int64, c_size_t, c_uint32, c_uint64

_LIMIT_PROCESS_TIME = 0x2
_LIMIT_PROCESS_MEMORY = 0x100
_LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x400
"""A process that crashes ends without a dialog."""

_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
_TICKS_PER_S = 10_000_000
"""The unit of times is 100 ns."""


class BasicLimits(ctypes.Structure):
    """``JOBOBJECT_BASIC_LIMIT_INFORMATION``."""

    _fields_ = (
        ("PerProcessUserTimeLimit", c_int64),
        ("PerJobUserTimeLimit", c_int64),
        ("LimitFlags", c_uint32),
        ("MinimumWorkingSetSize", c_size_t),
        ("MaximumWorkingSetSize", c_size_t),
        ("ActiveProcessLimit", c_uint32),
        ("Affinity", c_size_t),
        ("PriorityClass", c_uint32),
        ("SchedulingClass", c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """``JOBOBJECT_EXTENDED_LIMIT_INFORMATION``."""

    _fields_ = (
        ("BasicLimitInformation", BasicLimits),
        ("IoInfo", c_uint64 * 6),
        ("ProcessMemoryLimit", c_size_t),
        ("JobMemoryLimit", c_size_t),
        ("PeakProcessMemoryUsed", c_size_t),
        ("PeakJobMemoryUsed", c_size_t),
    )


def process_limits(memory_bytes: int, cpu_s: int) -> ExtendedLimits:
    """Return the limits for each process of a job: its committed memory, and its processor time in user mode.

    All processes of the job end when its last handle is closed, which the system does when the parent ends.
    """
    limits = ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = (
        _LIMIT_PROCESS_TIME | _LIMIT_PROCESS_MEMORY | _LIMIT_DIE_ON_UNHANDLED_EXCEPTION | _LIMIT_KILL_ON_JOB_CLOSE
    )
    limits.BasicLimitInformation.PerProcessUserTimeLimit = cpu_s * _TICKS_PER_S
    limits.ProcessMemoryLimit = memory_bytes
    return limits


if sys.platform == "win32":
    from ctypes import wintypes

    _EXTENDED_LIMIT_INFORMATION = 9
    _PROCESS_TERMINATE_AND_SET_QUOTA = 0x1 | 0x100

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.CreateJobObjectW.argtypes = (wintypes.LPVOID, wintypes.LPCWSTR)
    _kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD)
    _kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    _kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
    _kernel32.OpenProcess.restype = wintypes.HANDLE
    _kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)

    class JobObject:
        """A job, whose processes end at the latest when it is closed.

        Raises:
            OSError: The job cannot be created.
        """

        def __init__(self, limits: ExtendedLimits) -> None:
            self._handle = _kernel32.CreateJobObjectW(None, None)
            if not self._handle:
                raise ctypes.WinError(ctypes.get_last_error())
            if not _kernel32.SetInformationJobObject(
                self._handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            ):
                error = ctypes.WinError(ctypes.get_last_error())
                self.close()
                raise error

        def add(self, pid: int) -> None:
            """Add a child process that has not been waited for, with all the processes that it starts from now on.

            Raises:
                OSError: The process cannot be added.
            """
            process = _kernel32.OpenProcess(_PROCESS_TERMINATE_AND_SET_QUOTA, False, pid)
            if not process:
                raise ctypes.WinError(ctypes.get_last_error())
            try:
                if not _kernel32.AssignProcessToJobObject(self._handle, process):
                    raise ctypes.WinError(ctypes.get_last_error())
            finally:
                _kernel32.CloseHandle(process)

        def close(self) -> None:
            """End all processes of the job at once."""
            _kernel32.TerminateJobObject(self._handle, 1)
            _kernel32.CloseHandle(self._handle)
