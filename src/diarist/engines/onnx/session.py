"""ONNX Runtime sessions on the CPU, with a limited number of threads and without a growing memory arena."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of a session with this number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options


def open_graph(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU with this number of threads."""
    return onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
