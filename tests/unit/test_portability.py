"""Only ``diarist.system`` uses what some operating systems lack."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import diarist

SOURCE = Path(diarist.__file__).parent

ALLOWED = {
    "audio/decoder_program/resource_limits.py": {"/proc", "import resource", "signal.SIGKILL"},
    "doctor/machine.py": {"/sys"},
    "engines/gpu_detection.py": {"/proc"},
}
"""What else may be used, and where. The decoder process imports nothing of ``diarist``. Linux states the memory limit
of a container in ``/sys``, and NVIDIA's driver lists its GPUs in ``/proc``; both are used only if they exist."""

SKIPPED = ("system/", "engines/nemo/")
"""NeMo's authors support Linux."""

MODULES = {
    "_winapi", "curses", "fcntl", "grp", "msvcrt", "nt", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty",
    "winreg",
}  # fmt: skip

ATTRIBUTES = {
    "os": {
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "WEXITSTATUS", "WIFEXITED", "WIFSIGNALED", "WNOHANG",
        "WTERMSIG", "chown", "fchmod", "fchown", "fork", "geteuid", "getgid", "getloadavg", "getpgid", "getpgrp",
        "getsid", "getuid", "killpg", "mkfifo", "nice", "posix_fadvise", "pread", "preadv", "pwrite", "readv",
        "register_at_fork", "sched_setaffinity", "sendfile", "set_blocking", "setpgid", "setsid", "statvfs", "sync",
        "sysconf", "uname", "wait4", "waitid", "writev",
    },
    "select": {"epoll", "kqueue", "poll", "POLLERR", "POLLHUP", "POLLIN", "POLLNVAL", "POLLOUT", "POLLPRI"},
    "signal": {
        "CTRL_BREAK_EVENT", "CTRL_C_EVENT", "SIGALRM", "SIGBREAK", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE",
        "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "alarm", "pause", "pthread_kill",
        "pthread_sigmask", "setitimer", "sigwait",
    },
    "socket": {"AF_UNIX", "MSG_DONTWAIT", "SO_EXCLUSIVEADDRUSE", "SO_REUSEADDR", "SO_REUSEPORT"},
    "subprocess": {"CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW", "STARTUPINFO"},
    "mmap": {"madvise", "MADV_RANDOM", "MADV_SEQUENTIAL"},
    "time": {"clock_gettime", "tzset"},
}  # fmt: skip

OPTIONS = {"creationflags", "pass_fds", "preexec_fn", "process_group", "start_new_session", "startupinfo", "umask"}
"""Options of ``subprocess.Popen``."""

FOLDERS = ("/proc", "/dev/", "/sys/")


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield what a module uses that some systems lack."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"import {each.name}" for each in names if each.name in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module in MODULES:
                    yield f"import {module}"
                yield from (f"{module}.{each.name}" for each in names if each.name in ATTRIBUTES.get(module, ()))
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in ATTRIBUTES.get(module, ()):
                yield f"{module}.{name}"
            case ast.Attribute(attr="madvise"):
                yield "mmap.madvise"
            case ast.keyword(arg=str(name)) if name in OPTIONS:
                yield f"{name}="
            case ast.Constant(value=str(text)) if text.startswith(FOLDERS):
                yield "/" + text.split("/")[1]


@pytest.mark.parametrize(
    "path", [path for path in sorted(SOURCE.rglob("*.py")) if not str(path.relative_to(SOURCE)).startswith(SKIPPED)],
    ids=lambda path: str(path.relative_to(SOURCE)),
)  # fmt: skip
def test_a_module_uses_nothing_that_some_systems_lack(path):
    allowed = ALLOWED.get(path.relative_to(SOURCE).as_posix(), set())
    assert sorted(set(uses(ast.parse(path.read_text("utf-8")))) - allowed) == []


def test_what_is_allowed_exists():
    for name, allowed in ALLOWED.items():
        assert allowed <= set(uses(ast.parse((SOURCE / name).read_text("utf-8")))), name


@pytest.mark.parametrize(
    ("program", "used"),
    [
        ("import fcntl", "import fcntl"),
        ("from resource import getrlimit", "import resource"),
        ("def f():\n    import termios", "import termios"),
        ("os.pread(0, 1, 0)", "os.pread"),
        ("from os import killpg", "os.killpg"),
        ("select.poll()", "select.poll"),
        ("signal.signal(signal.SIGHUP, None)", "signal.SIGHUP"),
        ("Popen(command, start_new_session=True)", "start_new_session="),
        ("dict(process_group=0)", "process_group="),
        ("Path('/proc/self/stat')", "/proc"),
        ("Path(f'/proc/{pid}')", "/proc"),
        ("memory.madvise(1)", "mmap.madvise"),
    ],
)
def test_the_check_finds_it(program, used):
    assert list(uses(ast.parse(program))) == [used]
