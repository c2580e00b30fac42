from __future__ import annotations

import pytest

from diarist.system import file_replacement
from diarist.system.file_replacement import remove_file, replace_file


def opened_until(attempt: int):
    """Return an action that Windows refuses before the given attempt, and its attempts."""
    attempts: list[int] = []

    def action() -> str:
        attempts.append(len(attempts) + 1)
        if attempts[-1] < attempt:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        return "done"

    return action, attempts


def test_a_file_takes_the_place_of_another(tmp_path):
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_text("new")
    target.write_text("old")
    replace_file(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert target.read_text() == "new"


def test_a_file_is_removed_if_it_exists(tmp_path):
    (tmp_path / "file").touch()
    remove_file(tmp_path / "file")
    remove_file(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_what_windows_refuses_for_a_moment_is_tried_again(monkeypatch):
    monkeypatch.setattr(file_replacement, "_RETRY_S", 60.0)
    action, attempts = opened_until(3)
    assert file_replacement._while_open(action) == "done"
    assert attempts == [1, 2, 3]


def test_a_file_that_stays_open_is_an_error(monkeypatch):
    monkeypatch.setattr(file_replacement, "_RETRY_S", 0.1)
    action, attempts = opened_until(1_000)
    with pytest.raises(PermissionError):
        file_replacement._while_open(action)
    assert len(attempts) > 1


def test_other_systems_are_asked_once():
    action, attempts = opened_until(2)
    with pytest.raises(PermissionError):
        file_replacement._while_open(action)
    assert attempts == [1]
