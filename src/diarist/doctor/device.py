"""The check of the device that models run on: the driver, the libraries, the memory and the numeric types of a GPU."""

from __future__ import annotations

import os

from diarist.doctor.findings import Finding, ok, warning
from diarist.engines.cuda_driver import Gpu
from diarist.engines.device import LIBRARIES, USERS, Library, Machine, choose, onnxruntime_clash
from diarist.engines.device_probe import probe_machine
from diarist.engines.gpu_detection import visible_gpus
from diarist.models import select_recognizer
from diarist.settings import Settings


def check_device(settings: Settings) -> Finding:
    """Check the device of the models that do not run on PyTorch, in a separate process because libraries may crash it.

    Raises:
        ConfigurationError: The device does not exist.
        EngineUnavailable: The device cannot be used.
    """
    parts = (settings.diarizer_name, select_recognizer(settings).name)
    libraries = tuple(dict.fromkeys(LIBRARIES[part] for part in parts if part in LIBRARIES))
    if not libraries:
        return ok(f"{settings.device_of_nemo}: PyTorch examines it when NeMo's models are loaded")
    examine = settings.device != "cpu" and (settings.device != "auto" or visible_gpus(os.environ))
    return describe_choice(settings.device, libraries, probe_machine(settings.device) if examine else Machine())


def describe_choice(setting: str, libraries: tuple[Library, ...], machine: Machine) -> Finding:
    """Return what DEVICE selects for each library, and what keeps it from using a GPU that is there.

    Raises:
        ConfigurationError: The device does not exist.
        EngineUnavailable: The device cannot be used.
    """
    choices = {library: choose(setting, library, machine) for library in libraries}
    summary = "; ".join(f"{USERS[library]} {choice.device.name}" for library, choice in choices.items())
    used = {choice.device.index for choice in choices.values() if choice.device.kind == "cuda"}
    details = [_describe(gpu, machine) for gpu in machine.gpus if gpu.index in used]
    message = "; ".join((summary, *details))
    problems = [choice.notice for choice in choices.values() if choice.notice]
    if clash := onnxruntime_clash():
        problems.append(clash)
    return warning(f"{message}. {' '.join(dict.fromkeys(problems))}") if problems else ok(message)


def _describe(gpu: Gpu, machine: Machine) -> str:
    capability = ".".join(map(str, gpu.compute_capability))
    text = f"{gpu.label} has {gpu.memory_bytes / 2**30:.1f} GiB of memory and compute capability {capability}"
    if gpu.index < len(machine.compute_types):
        text += f", and CTranslate2 supports {', '.join(machine.compute_types[gpu.index])} there"
    return text
