"""The device of the engines that need no PyTorch: what DEVICE selects on this machine, and why.

Whisper runs in CTranslate2 and the ONNX graphs run in ONNX Runtime, each with requirements of its own, so each has a
device of its own. The choice is a pure function of a description of the machine, ``Machine``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from diarist.engines.cuda_driver import DriverError, Gpu, usable_gpus
from diarist.engines.cuda_libraries import CUBLAS, CUDA, load_libraries
from diarist.engines.gpu_detection import visible_gpus
from diarist.errors import ConfigurationError, EngineUnavailable
from diarist.settings import Settings

Library = Literal["ctranslate2", "onnxruntime"]

USERS: Mapping[Library, str] = {"ctranslate2": "Whisper runs on", "onnxruntime": "ONNX models run on"}
"""What each library runs, for messages."""

LIBRARIES: Mapping[str, Library] = {
    "embedded": "onnxruntime",
    "community-1": "onnxruntime",
    "whisper": "ctranslate2",
    "onnx": "onnxruntime",
}
"""The library of each diarizer and recognizer that DEVICE applies to."""

CUDA_PROVIDER = "CUDAExecutionProvider"
COREML_PROVIDER = "CoreMLExecutionProvider"

INSTALL = "Install the extra `gpu` as docs/gpu.md says"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that models run on."""

    kind: Literal["cpu", "cuda", "coreml"]
    index: int = 0
    """The number of the GPU among those that this process may use."""

    name: str = "cpu"
    """``cpu``, ``coreml``, or the number and name of the GPU."""


CPU = Device("cpu")
COREML = Device("coreml", name="coreml")


@dataclass(frozen=True, slots=True)
class Choice:
    """The device that was chosen, and what users should know about the choice."""

    device: Device
    notice: str | None = None
    """Why a GPU that is there is not used, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choice of a device depends on."""

    gpus: tuple[Gpu, ...] = ()
    """The GPUs that the driver lets this process use."""

    driver_problem: str | None = None
    """Why a GPU that is there cannot be used by any library."""

    problems: Mapping[Library, str] = field(default_factory=dict)
    """Why a library cannot use the GPUs, and what to do about it; without an entry, it can."""

    compute_types: tuple[tuple[str, ...], ...] = ()
    """The numeric types that CTranslate2 supports on each GPU; empty if it cannot use them."""

    has_coreml: bool = False
    """Whether ONNX Runtime has the provider for Core ML."""


def choose(setting: str, library: Library, machine: Machine) -> Choice:
    """Return the device on which a library runs its models.

    Args:
        setting: The value of DEVICE: ``auto``, ``cpu``, ``coreml``, ``cuda`` or ``cuda:N``.
        library: The library that runs the models.
        machine: The description of this machine.

    Raises:
        ConfigurationError: The device does not exist here.
        EngineUnavailable: The GPU exists and cannot be used. The message says why and what to do.
    """
    problem = machine.driver_problem or machine.problems.get(library)
    if setting == "cpu":
        return Choice(CPU)
    if setting == "coreml":
        if not machine.has_coreml:
            raise ConfigurationError(
                "DEVICE=coreml: ONNX Runtime supports Core ML on macOS only. Set it to auto, cpu or cuda (docs/gpu.md)."
            )
        return Choice(COREML if library == "onnxruntime" else CPU)
    if setting == "auto":
        if problem is None:
            return Choice(_cuda(machine.gpus[0]) if machine.gpus else CPU)
        user = "models run on" if machine.driver_problem else USERS[library]
        return Choice(
            CPU, f"This machine has a GPU, but {user} the CPU: {problem} Set DEVICE to cpu if this is intended."
        )
    index = int(setting.partition(":")[2] or 0)
    if problem is not None:
        raise EngineUnavailable(f"DEVICE={setting}: {problem} Or set DEVICE to auto or cpu.")
    if index >= len(machine.gpus):
        count = len(machine.gpus)
        raise ConfigurationError(
            f"DEVICE={setting}: NVIDIA's driver reports {count} GPU{'s' * (count != 1)} here. Set it to auto or cpu, or"
            " install a driver (docs/gpu.md)."
        )
    return Choice(_cuda(machine.gpus[index]))


def choose_here(settings: Settings, library: Library) -> Choice:
    """Return the device on which a library runs its models in this process.

    Raises:
        ConfigurationError: The device does not exist here.
        EngineUnavailable: The GPU exists and cannot be used.
    """
    return choose(settings.device, library, describe_machine(settings.device))


@cache
def describe_machine(setting: str) -> Machine:
    """Describe this machine, as far as a value of DEVICE makes it matter, and load the libraries of a GPU."""
    if setting == "cpu":
        return Machine()
    if setting == "coreml":
        import onnxruntime

        return Machine(has_coreml=COREML_PROVIDER in onnxruntime.get_available_providers())
    # Most machines have no GPU. Unless one is asked for, that is no problem, and no library is loaded to find out.
    if setting == "auto" and not visible_gpus(os.environ):
        return Machine()
    try:
        gpus = usable_gpus()
    except DriverError as error:
        return Machine(driver_problem=f"{error}. Install NVIDIA's driver, and with Docker its Container Toolkit.")
    problems: dict[Library, str] = {}
    if problem := _ctranslate2_problem():
        problems["ctranslate2"] = problem
    if problem := _onnxruntime_problem():
        problems["onnxruntime"] = problem
    types = () if "ctranslate2" in problems else tuple(_compute_types(gpu) for gpu in gpus)
    return Machine(gpus, problems=problems, compute_types=types)


def onnxruntime_clash() -> str | None:
    """Return what to do if ONNX Runtime is installed in both its builds, which share one folder; None if it is not."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name) is not None]
    if len(installed) < 2:
        return None
    return (
        "The packages onnxruntime and onnxruntime-gpu are both installed, and each overwrites the files of the other."
        f" Run `pip uninstall -y onnxruntime`, and then `pip install --no-deps --force-reinstall"
        f" onnxruntime-gpu=={_version('onnxruntime-gpu')}`."
    )


def _ctranslate2_problem() -> str | None:
    if missing := load_libraries(CUBLAS):
        return f"{' and '.join(missing)} cannot be loaded. {INSTALL}."
    import ctranslate2

    if ctranslate2.get_cuda_device_count() == 0:
        return f"This build of CTranslate2 {ctranslate2.__version__} finds no GPU. Install its wheel from PyPI again."
    return None


def _compute_types(gpu: Gpu) -> tuple[str, ...]:
    import ctranslate2

    return tuple(sorted(ctranslate2.get_supported_compute_types("cuda", gpu.index)))


def _onnxruntime_problem() -> str | None:
    import onnxruntime

    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return onnxruntime_clash() or f"ONNX Runtime is installed in its build for the CPU. {INSTALL}."
    if missing := load_libraries(CUDA):
        return f"{' and '.join(missing)} cannot be loaded. {INSTALL}."
    from diarist.engines.onnx.session import cuda_problem

    if problem := cuda_problem():
        return f"ONNX Runtime {onnxruntime.__version__} cannot use CUDA ({problem}). {INSTALL}."
    return None


def _cuda(gpu: Gpu) -> Device:
    return Device("cuda", gpu.index, gpu.label)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
