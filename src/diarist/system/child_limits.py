"""A child process with limits of its memory and processor time, which ends together with its descendants.

Who enforces the limits depends on the system:

- On Linux, the child limits itself, by ``setrlimit`` and ``prctl``, before it reads any input.
- macOS does not enforce a limit of the address space: the parent watches the memory that the child uses. All else is as
  on Linux, except that the child ends a second after its parent, and not at once.
- On Windows, the parent puts the child into a job object. This was not run on a Windows machine.

Where the modules and functions for this are missing in Python, the parent watches the memory too, and ends the
processes that psutil finds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from diarist.system.pipe_reading import read_pipe
from diarist.system.process_tree import kill_tree

if sys.platform == "win32":
    from diarist.system.job_object import JobObject, process_limits

try:
    import resource  # noqa: F401 - for the child, which has the same interpreter
except ImportError:
    _HAS_RLIMITS = False
else:
    _HAS_RLIMITS = True

CHILD_LIMITS_ITSELF = _HAS_RLIMITS
"""Whether a child has to call ``setrlimit``."""

_HAS_PROCESS_GROUPS = hasattr(os, "killpg")
_PARENT_WATCHES_MEMORY = sys.platform != "win32" and not (sys.platform == "linux" and CHILD_LIMITS_ITSELF)
_CREATE_SUSPENDED = 0x4
"""A flag of ``CreateProcess``: the process is put into its job before it runs, and so before it can start another."""

LIBRARY_BYTES = 128 * 2**20
"""What an interpreter with PyAV may take beyond the limit, where it does not measure that itself. On Linux, it takes
31 MB, and Windows also counts memory that is not in use yet."""

_INTERPRETER_VARIABLES = {"win32": {"SYSTEMROOT"}, "darwin": {"DYLD_LIBRARY_PATH"}}.get(
    sys.platform, {"LD_LIBRARY_PATH"}
)


def interpreter_environment() -> dict[str, str]:
    """Return the variables without which an interpreter may not find its libraries, and therefore not start."""
    return {name: value for name, value in os.environ.items() if name in _INTERPRETER_VARIABLES}


class LimitedProcess:
    """A child process in the root folder, which Ctrl-C in the terminal does not reach.

    With ``CHILD_LIMITS_ITSELF`` it has to limit its processor time, and on Linux its address space too.

    Args:
        arguments: The command.
        stdin: The descriptor of its standard input. Its output is a pipe.
        environment: All of its variables.
        memory_bytes: The memory that it may take beyond its libraries.
        cpu_s: The processor time that it may take, in seconds.

    Raises:
        OSError: The process cannot be started, or not be limited.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdin: int,
        environment: Mapping[str, str],
        memory_bytes: int,
        cpu_s: int,
    ) -> None:
        self._memory_bytes = LIBRARY_BYTES + memory_bytes
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NO_WINDOW | _CREATE_SUSPENDED
        self._popen = subprocess.Popen(
            arguments, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            cwd=Path(sys.executable).anchor, start_new_session=_HAS_PROCESS_GROUPS, creationflags=flags,
        )  # fmt: skip
        assert self._popen.stdout is not None
        self.output = read_pipe(self._popen.stdout)
        """Reads the output of the process."""

        if sys.platform == "win32":
            self._job: JobObject | None = None
            try:
                self._job = JobObject(process_limits(self._memory_bytes, cpu_s))
                self._job.add(self._popen.pid)
                _resume(self._popen)
            except BaseException:
                self.end()
                raise

    def exceeds_memory(self) -> bool:
        """Return whether the process takes more memory than it may, where neither it nor the system checks that."""
        if not _PARENT_WATCHES_MEMORY:
            return False
        import psutil

        try:
            used_bytes: int = psutil.Process(self._popen.pid).memory_info().rss
        except psutil.NoSuchProcess:  # it has ended
            return False
        return used_bytes > self._memory_bytes

    def wait(self, timeout_s: float) -> int:
        """Wait until the process ends by itself, and return its status, as ``subprocess.Popen.wait`` does.

        Raises:
            subprocess.TimeoutExpired: It does not end within the time.
        """
        return self._popen.wait(timeout_s)

    def end(self) -> None:
        """End the process and its descendants at once, wait until it has ended, and close its output."""
        if sys.platform == "win32":
            if self._job is not None:
                self._job.close()
            self._popen.kill()  # if it could not be added to the job
        else:
            kill_tree(self._popen)
        self._popen.wait()
        self.output.close()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


if sys.platform == "win32":

    def _resume(process: subprocess.Popen[bytes]) -> None:
        import psutil

        psutil.Process(process.pid).resume()
