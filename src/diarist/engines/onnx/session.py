"""ONNX Runtime sessions, with a limited number of threads and without a memory arena that grows on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from diarist.engines.device import COREML_PROVIDER, CPU, CUDA_PROVIDER, Device
from diarist.engines.memory_limit import does_not_fit, is_out_of_memory
from diarist.errors import EngineUnavailable

CPU_PROVIDER = "CPUExecutionProvider"

CUDA_OPTIONS = {
    "arena_extend_strategy": "kSameAsRequested",  # by default it doubles, and takes memory that Whisper needs
    "cudnn_conv_algo_search": "HEURISTIC",  # by default it tries all algorithms again for each length of the input
    "use_tf32": "0",  # the networks compute what they compute on the CPU
}
"""Options of the provider for CUDA. They have not been measured on a GPU."""


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of a session with this number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options


def providers(device: Device) -> list[str | tuple[str, dict[str, Any]]]:
    """Return the execution providers for a device, in order of preference. The CPU runs what the first one cannot."""
    if device.kind == "cuda":
        return [(CUDA_PROVIDER, {"device_id": str(device.index), **CUDA_OPTIONS}), CPU_PROVIDER]
    return [COREML_PROVIDER, CPU_PROVIDER] if device.kind == "coreml" else [CPU_PROVIDER]


def open_graph(graph: Path | bytes, threads: int, device: Device = CPU) -> onnxruntime.InferenceSession:
    """Open a graph, from its file or its content, on a device with this number of threads.

    Raises:
        EngineUnavailable: The GPU cannot run the graph, or its memory is too small.
    """
    if device.kind != "cuda":
        return onnxruntime.InferenceSession(graph, session_options(threads), providers=providers(device))
    try:
        # Without this option, an error of the GPU is printed, and the CPU is used instead.
        return onnxruntime.InferenceSession(
            graph, session_options(threads), providers=providers(device), enable_fallback=0
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise does_not_fit(graph.parent.name if isinstance(graph, Path) else "A model", device.name) from error
        raise EngineUnavailable(
            f"ONNX Runtime cannot open a model on {device.name} ({error}). Set DEVICE to another device (docs/gpu.md)."
        ) from error


def cuda_problem() -> str | None:
    """Return why ONNX Runtime cannot compute on a GPU, or None if it can."""
    from onnx import ModelProto, TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", values[:1], values[1:])
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = open_graph(model.SerializeToString(), 1, Device("cuda", name="the GPU"))
    except EngineUnavailable as error:
        return " ".join(str(error.__cause__).split()).rstrip(" ;")
    # The provider is left out without an error if its library cannot be loaded.
    return None if CUDA_PROVIDER in session.get_providers() else "its library for CUDA cannot be loaded"
