"""Checks of Python, packages, memory and folders, as they are and with simulated problems."""

from __future__ import annotations

import os

import pytest

from diarist.doctor import machine
from diarist.settings import Settings


@pytest.fixture
def make(tmp_path):
    def settings(**changes: object) -> Settings:
        own = {"data_dir": tmp_path / "data", "log_file": tmp_path / "logs" / "log", "model_dir": tmp_path / "models"}
        return Settings(_env_file=None, **{"min_free_mb": 0} | own | changes)

    return settings


def test_this_machine_is_ok(make):
    assert machine.check_python(make()).level == "ok"
    assert machine.check_packages(make()).level == "ok"
    assert machine.check_resources(make()).level in ("ok", "warning")
    assert "MB" in machine.check_resources(make()).message


def test_extras_count_where_the_settings_need_them(make):
    fleet = make(queue_url="redis://localhost", traces="otlp")
    found = machine.check_packages(fleet)
    assert found.level == "ok"
    assert "distributed and tracing" in found.message


def test_a_package_that_is_missing_or_too_old_is_named(make, monkeypatch):
    real = machine.version

    def version(name: str) -> str:
        if name == "redis":
            raise machine.PackageNotFoundError(name)
        return "0.1" if name == "flask" else real(name)

    monkeypatch.setattr(machine, "version", version)
    found = machine.check_packages(make(queue_url="redis://localhost"))
    assert found.level == "error"
    assert "redis is not installed" in found.message
    assert "flask is version 0.1, not " in found.message
    assert "pip install 'diarist[distributed]'" in found.message
    assert "redis" not in machine.check_packages(make()).message, "nobody needs it there"


def test_the_build_of_onnx_runtime_for_gpus_replaces_the_one_for_the_cpu(make, monkeypatch):
    real, installed = machine.version, {"onnxruntime-gpu": "1.26.0"}

    def version(name: str) -> str:
        if not name.startswith("onnxruntime"):
            return real(name)
        if name not in installed:
            raise machine.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(machine, "version", version)
    assert machine.check_packages(make()).level == "ok"
    installed["onnxruntime-gpu"] = "1.20.0"
    assert "onnxruntime is version 1.20.0, not " in machine.check_packages(make()).message
    installed.clear()
    assert "onnxruntime is not installed" in machine.check_packages(make()).message


def test_little_memory_is_a_warning(make, monkeypatch):
    monkeypatch.setattr(machine, "memory_mb", lambda: 2_000)
    assert machine.check_resources(make(workers=1)).level == "ok"
    found = machine.check_resources(make(workers=3))
    assert found.level == "warning"
    assert "lower WORKERS" in found.message


def test_more_threads_than_cores_is_a_warning(make):
    found = machine.check_resources(make(workers=2, cpu_threads=256))
    assert found.level == "warning"
    assert "CPU_THREADS" in found.message


def test_missing_folders_are_not_created(make, tmp_path):
    for check in (machine.check_data_dir, machine.check_temp_dir, machine.check_log_file, machine.check_model_dir):
        found = check(make())
        assert (found.level, "will be created" in found.message) == ("ok", True), found
    assert list(tmp_path.iterdir()) == []


def test_existing_folders_are_unchanged(make, tmp_path):
    (tmp_path / "data").mkdir()
    assert machine.check_data_dir(make()).level == "ok"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_in_place_of_a_folder_is_an_error(make, tmp_path):
    (tmp_path / "data").write_text("x")
    found = machine.check_data_dir(make())
    assert found.level == "error"
    assert "set DATA_DIR" in found.message


def test_a_folder_in_place_of_the_log_file_is_an_error(make, tmp_path):
    (tmp_path / "logs" / "log").mkdir(parents=True)
    assert "LOG_FILE" in machine.check_log_file(make()).message


def test_a_disk_that_is_nearly_full_is_an_error(make, monkeypatch, tmp_path):
    free_mb = machine.shutil.disk_usage(tmp_path).free // 2**20
    found = machine.check_data_dir(make(min_free_mb=free_mb + 10_000))
    assert found.level == "error"
    assert "MIN_FREE_MB" in found.message


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="needs sysconf")
def test_memory_is_the_machines_or_less():
    memory_mb = machine.memory_mb()
    assert memory_mb is not None
    assert 100 < memory_mb <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
