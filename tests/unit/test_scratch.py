"""Temporary files: who may read them, which of them a sweep removes, and that no other module names them."""

from __future__ import annotations

import ast
import errno
import os
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diarist import scratch
from diarist.errors import ConfigurationError, StorageFull

SOURCE = Path(scratch.__file__).parent
PREFIXES = tuple(value for name, value in vars(scratch).items() if name.endswith("_PREFIX"))
LONG_AGO = (1.0, 1.0)


def now() -> datetime:
    return datetime.now(UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made_elsewhere(tree: ast.AST) -> list[int]:
    """Return the lines that make a temporary file, or that name the prefix of one."""
    prefixes = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in PREFIXES
    ]
    calls = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tempfile" and node.attr != "gettempdir")
        or (isinstance(node, ast.ImportFrom) and node.module == "tempfile")
    ]
    return prefixes + calls


def test_no_other_module_makes_or_names_temporary_files():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
    found = {path.relative_to(SOURCE).as_posix() for path, tree in trees.items() if made_elsewhere(tree)}
    assert found == {"scratch.py"}


def test_prefixes_are_distinct():
    assert len(PREFIXES) >= 10
    for prefix in PREFIXES:
        assert [other for other in PREFIXES if other.startswith(prefix)] == [prefix]


def test_a_locked_file_is_private_and_removed_at_the_end(tmp_path):
    folder = tmp_path / "a" / "b"
    with scratch.locked_file(folder, scratch.DOWNLOAD_PREFIX) as path:
        assert path.parent == folder
        assert path.name.startswith(scratch.DOWNLOAD_PREFIX)
        assert (mode(folder), mode(path)) == (0o700, 0o600)
    assert list(folder.iterdir()) == []


def test_a_locked_file_that_was_moved_away_stays(tmp_path):
    with scratch.locked_file(tmp_path, scratch.DOWNLOAD_PREFIX) as path:
        path.rename(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_a_sweep_leaves_a_file_that_is_locked(tmp_path):
    with scratch.locked_file(tmp_path, scratch.DOWNLOAD_PREFIX) as path:
        os.utime(path, LONG_AGO)
        assert scratch.sweep(tmp_path, now()) == 0
        assert path.exists()


def test_a_sweep_removes_what_a_killed_process_left(tmp_path):
    program = (
        "import sys; from pathlib import Path; from diarist import scratch\n"
        "with scratch.locked_file(Path(sys.argv[1]), scratch.DOWNLOAD_PREFIX) as path:\n"
        "    print(path, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        path = Path(child.stdout.readline().strip())
        assert scratch.sweep(tmp_path, now() + timedelta(seconds=60)) == 0
    finally:
        child.kill()
        child.communicate()
    assert scratch.sweep(tmp_path, now() + timedelta(seconds=60)) == 1
    assert not path.exists()


def test_a_sweep_removes_only_old_files_with_the_prefixes(tmp_path):
    old, young, foreign = (tmp_path / name for name in (f"{scratch.UPLOAD_PREFIX}1", f"{scratch.UPLOAD_PREFIX}2", "x"))
    for path in (old, young, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, LONG_AGO)
    folder = tmp_path / f"{scratch.UPLOAD_PREFIX}3"
    folder.mkdir()
    os.utime(folder, LONG_AGO)
    assert scratch.sweep(tmp_path, now() - timedelta(hours=1), scratch.SWEPT_PREFIXES) == 1
    assert set(tmp_path.iterdir()) == {young, foreign, folder}


def test_a_sweep_of_a_folder_that_does_not_exist_removes_nothing(tmp_path):
    assert scratch.sweep(tmp_path / "missing", now()) == 0


def test_the_temporary_folder_is_private_and_checked(tmp_path):
    scratch.prepare_temp_dir(tmp_path / "tmp")
    assert mode(tmp_path / "tmp") == 0o700
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"TEMP_AUDIO_DIR .*file cannot be written"):
        scratch.prepare_temp_dir(tmp_path / "file")


def test_the_temporary_folder_is_emptied(tmp_path):
    (tmp_path / "tmp" / "folder").mkdir(parents=True)
    (tmp_path / "tmp" / "file").touch()
    scratch.clear_temp_dir(tmp_path / "tmp")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_default_folder_is_restored(tmp_path):
    before = tempfile.gettempdir()
    with scratch.default_temp_dir(tmp_path):
        assert tempfile.gettempdir() == str(tmp_path)
    assert tempfile.gettempdir() == before


def test_folders_of_processes_that_ended_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, used = (tmp_path / f"{scratch.NEMO_PREFIX}{pid}-x" for pid in (ended.pid, os.getppid()))
    for folder in (left, used):
        (folder / "weights").mkdir(parents=True)
    with scratch.default_temp_dir(tmp_path), scratch.process_folder(scratch.NEMO_PREFIX) as folder:
        assert folder.name.startswith(f"{scratch.NEMO_PREFIX}{os.getpid()}-")
        assert set(tmp_path.iterdir()) == {folder, used}
    assert list(tmp_path.iterdir()) == [used]


def test_a_staging_folder_replaces_those_that_were_left(tmp_path):
    for prefix in (scratch.EXPORT_PREFIX, scratch.REPLACED_PREFIX):
        (tmp_path / f"{prefix}left").mkdir()
    with scratch.staging_folder(tmp_path, scratch.EXPORT_PREFIX, scratch.REPLACED_PREFIX) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_an_error_of_its_own(number):
    with (
        pytest.raises(StorageFull, match=r"ran full while it was tried\. .* free space in SETTING\."),
        scratch.disk_full_errors("it was tried", "SETTING"),
    ):
        raise OSError(number, "full")


def test_other_errors_of_the_disk_stay_as_they_are():
    with pytest.raises(PermissionError), scratch.disk_full_errors("it was tried", "SETTING"):
        raise PermissionError(errno.EACCES, "denied")


def test_too_little_free_space_is_refused(tmp_path):
    scratch.check_free_space(tmp_path, 1, 0, "SETTING")
    with pytest.raises(StorageFull, match=r"must stay free.* in SETTING or lower MIN_FREE_MB"):
        scratch.check_free_space(tmp_path, 1, 2**62, "SETTING")
