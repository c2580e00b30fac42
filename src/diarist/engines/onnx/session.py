"""How ONNX graphs are run: on the CPU, with a bounded number of threads and no growing memory arena."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session with ``threads`` threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options


def open_graph(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU with ``threads`` threads."""
    return onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
