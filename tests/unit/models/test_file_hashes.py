from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models import file_hashes
from diarist.models.file_hashes import RECORD_FILE, remember, sha256_of
from diarist.models.integrity import check_file

CONTENT = b"weights" * 1_000

READS = """
import sys
from pathlib import Path
from diarist.models.file_hashes import sha256_of
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
for _ in range(2):
    digests = [sha256_of(Path(path)) for path in sys.argv[1:]]
print(sum(path in sys.argv[1:] for path in opened), *digests)
"""


def reads_in_another_process(*paths: Path) -> int:
    """Return how many times another process that hashes the files twice opens one, and check the hashes."""
    answer = subprocess.check_output([sys.executable, "-c", READS, *map(str, paths)], text=True).split()
    assert answer[1:] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return int(answer[0])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "model.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_read_once_by_all_processes(file: Path) -> None:
    other = file.with_name("config.json")
    other.write_bytes(b"{}")
    assert [reads_in_another_process(file, other) for _ in range(3)] == [2, 0, 0]
    assert sorted(json.loads((file.parent / RECORD_FILE).read_text())) == ["config.json", "model.bin"]


def _change_and_restore_the_time(path: Path) -> None:
    status = path.stat()
    path.write_bytes(CONTENT.swapcase())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(CONTENT.swapcase())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [lambda path: path.write_bytes(CONTENT.swapcase()), _change_and_restore_the_time, _replace],
    ids=["same size", "same size and time", "renamed"],
)
def test_a_file_that_was_changed_is_read_again(file: Path, change: Callable[[Path], object]) -> None:
    before = sha256_of(file)
    change(file)
    assert sha256_of(file) != before
    assert reads_in_another_process(file) == 0


def test_a_change_directly_after_the_hashing_is_noticed(file: Path) -> None:
    for number in range(20):
        file.write_bytes(bytes([number]) * 100)
        assert sha256_of(file) == hashlib.sha256(bytes([number]) * 100).hexdigest()


def test_always_read_does_not_rely_on_the_record(file: Path) -> None:
    digest = sha256_of(file)
    record = file.parent / RECORD_FILE
    record.write_text(record.read_text().replace(digest, "0" * 64))
    file_hashes._hashes_of_this_process().clear()
    assert sha256_of(file) == "0" * 64
    assert sha256_of(file, always_read=True) == digest
    assert sha256_of(file) == digest, "the record was not corrected"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model.bin": 1}', '{"model.bin": {"sha256": "0"}}', "\xff"])
def test_a_record_that_cannot_be_used_is_replaced(file: Path, content: str) -> None:
    (file.parent / RECORD_FILE).write_text(content, encoding="latin-1")
    assert reads_in_another_process(file) == 1
    assert reads_in_another_process(file) == 0


def test_the_record_forgets_files_that_are_gone(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"x")
    sha256_of(other)
    other.unlink()
    sha256_of(file)
    assert list(json.loads((file.parent / RECORD_FILE).read_text())) == ["model.bin"]


def test_the_record_can_be_in_another_folder(file: Path, tmp_path: Path) -> None:
    digest = sha256_of(file, record_folder=tmp_path)
    assert [path.name for path in file.parent.iterdir()] == ["model.bin"]
    assert json.loads((tmp_path / RECORD_FILE).read_text())[str(file)]["sha256"] == digest


def test_a_hash_that_is_known_is_not_computed(file: Path) -> None:
    remember(file, hashlib.sha256(CONTENT).hexdigest())
    assert reads_in_another_process(file) == 0


def test_a_folder_that_cannot_be_written_costs_one_read_per_process(file: Path) -> None:
    (file.parent / RECORD_FILE).mkdir()  # stops the superuser too
    assert [reads_in_another_process(file) for _ in range(2)] == [1, 1]
    assert sorted(path.name for path in file.parent.iterdir()) == [RECORD_FILE, "model.bin"]


@pytest.mark.slow
def test_processes_that_hash_at_the_same_time_leave_a_record_that_can_be_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"file{number}" for number in range(8)]
    for path in paths:
        path.write_bytes(os.urandom(10_000))
    commands = [[sys.executable, "-c", READS, *map(str, paths[number:] + paths[:number])] for number in range(3)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    sha256_of(paths[0])
    assert set(json.loads((tmp_path / RECORD_FILE).read_text())) <= {path.name for path in paths}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f"{RECORD_FILE}.")] == []


class TestCheckFile:
    def test_a_file_that_is_as_expected(self, file: Path) -> None:
        check_file(file, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "voice")

    def test_another_size(self, file: Path) -> None:
        with pytest.raises(ModelCorrupt, match=r"model\.bin of model voice is damaged: it has 7000 bytes"):
            check_file(file, 1, hashlib.sha256(CONTENT).hexdigest(), "voice")

    def test_another_hash(self, file: Path) -> None:
        for _ in range(2):
            with pytest.raises(ModelCorrupt, match=r"model\.bin of model voice has an unexpected hash"):
                check_file(file, len(CONTENT), "0" * 64, "voice")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailable, match="Model voice is missing"):
            check_file(tmp_path / "nothing", 1, "0" * 64, "voice")
