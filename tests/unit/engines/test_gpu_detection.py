from __future__ import annotations

import logging
from pathlib import Path

import pytest

from diarist.engines.gpu_detection import visible_gpus

NOWHERE = Path("/nowhere")


@pytest.fixture
def driver(tmp_path) -> Path:
    """The driver's folder on a machine with two GPUs."""
    for bus in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
    return tmp_path / "gpus"


def program(folder: Path, text: str) -> dict[str, str]:
    """An environment in which ``nvidia-smi`` is this shell script."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        ("0", ("0",)),
        ("3, 1", ("3", "1")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("2,-1,0", ("2",)),
        ("0,0", ()),
        ("GPU-8932f937-d72c,MIG-5a1b", ("GPU-8932f937-d72c", "MIG-5a1b")),
    ],
)
def test_cuda_visible_devices_takes_precedence(driver, chosen, gpus):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": chosen}, driver) == gpus


def test_the_gpus_of_the_driver_are_counted(driver):
    assert visible_gpus({"PATH": ""}, driver) == ("0", "1")


def test_nvidia_smi_is_used_without_the_folder_of_the_driver(tmp_path):
    listed = (
        "GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g.18gb Device  0: (UUID: MIG-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)"
    )
    environment = program(tmp_path, f"test \"$*\" = -L && cat <<'END'\n{listed}\nEND")
    assert visible_gpus(environment, NOWHERE) == ("0", "1")


def test_a_failure_of_nvidia_smi_is_logged_and_counts_as_no_gpu(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert visible_gpus(program(tmp_path, "exit 9"), NOWHERE) == ()
    assert "WORKERS" in caplog.text


def test_no_driver(tmp_path, caplog):
    assert visible_gpus({"PATH": str(tmp_path)}, NOWHERE) == ()
    assert caplog.text == ""
