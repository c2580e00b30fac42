"""Remove the compiled extension of torchaudio if this PyTorch cannot load it, so that torchaudio can be imported.

The torchaudio wheels for Linux on the package index are built for CUDA: with a PyTorch without CUDA, their extension
does not find ``libc10_cuda.so``, and the whole import fails. Without the extension, torchaudio can be imported
(``torchaudio/_extension``); what the extension contains (forced alignment, RNN-T loss, filters) is not needed here.
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
