"""Takes from torchaudio the compiled extension that this PyTorch cannot load, so that the rest of it can be imported.

torchaudio's wheels for Linux on the package index are built for CUDA: beside a PyTorch without CUDA their extension
finds no ``libc10_cuda.so``, and the whole import fails. Where there is no extension torchaudio does without, as it says
itself (``torchaudio/_extension``); what it holds is not needed here (forced alignment, RNN-T loss, filters).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch


def main() -> None:
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None:
        return
    for extension in (Path(found.origin).parent / "lib").glob("_torchaudio*.so"):
        try:
            torch.ops.load_library(extension)
        except OSError:
            extension.unlink()


if __name__ == "__main__":
    main()
