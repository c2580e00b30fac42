"""Measure how the memory of the service and of its worker develops over many uploads, one after the other.

    python benchmarks/worker_memory.py RECORDING [--uploads 500] [--seconds 2] [--threads 1] [--csv OUT] [--svg OUT]

A new service with empty folders receives clips of the recording by ``POST /diarize``. Each clip begins elsewhere and
has another length, within a tenth of ``--seconds``, so that no two have the same shape. After each response, the
resident size of the service and of its worker is read, and how much of the worker's no file backs. The script runs on
Linux and needs the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from diarist.audio import DecodeLimits, decode
from diarist.types import SAMPLE_RATE, Seconds
from growth import write_wav
from length import post, running_service

WARM_UP = 100
"""The uploads after which the memory should be flat: by then every buffer has had its largest size."""

ROW_EVERY = 50
SEED = 14
WIDTH, HEIGHT, MARGIN = 640, 260, 46
LINES = (
    ("service_mb", "service", "#6a8d3f"),
    ("worker_mb", "worker", "#1f6f8b"),
    ("worker_anonymous_mb", "worker, anonymous", "#e07a1f"),
)
"""What is plotted: the field, its title and its color."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory after an upload, in megabytes (2^20 bytes)."""

    upload: int
    service_mb: float
    """The resident size of the process that answers requests."""

    worker_mb: float
    """The resident size of the worker process."""

    worker_anonymous_mb: float
    """The part of it that no file backs: the heaps of all allocators, and stacks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--uploads", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a clip; default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="CPU_THREADS of the service; default: %(default)s")
    parser.add_argument("--csv", type=Path, help="write every sample to this file")
    parser.add_argument("--svg", type=Path, help="write the plot to this file")
    arguments = parser.parse_args()
    samples = decode(arguments.recording, DecodeLimits())[0].samples
    with tempfile.TemporaryDirectory(prefix="diarist-memory-") as scratch:
        measured = measure(samples, arguments.uploads, arguments.seconds, arguments.threads, Path(scratch))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, tuple(asdict(measured[0])))
            writer.writeheader()
            writer.writerows(asdict(each) for each in measured)
    if arguments.svg:
        arguments.svg.write_text(plot(measured))
    print(table(measured))


def measure(samples: np.ndarray, uploads: int, seconds: Seconds, threads: int, scratch: Path) -> tuple[Sample, ...]:
    """Send the clips to a new service, and return the memory after each of them.

    Args:
        samples: The samples of the recording: float32, shape (samples,), 16 kHz.
        uploads: The number of clips.
        seconds: The average length of a clip.
        threads: CPU_THREADS of the service.
        scratch: An empty folder for the service and the clips.
    """
    environment = {
        "DATA_DIR": str(scratch / "data"), "LOG_FILE": str(scratch / "service.log"), "FLASK_PORT": "0",
        "FLASK_HOST": "127.0.0.1", "CPU_THREADS": str(threads), "LOG_FORMAT": "plain", "WORKERS": "1",
    }  # fmt: skip
    choose = random.Random(SEED)
    measured = []
    with running_service(environment) as (service, address):
        (worker,) = service.children()
        for upload in range(1, uploads + 1):
            length = min(round(seconds * choose.uniform(0.9, 1.1) * SAMPLE_RATE), len(samples))
            start = choose.randrange(len(samples) - length + 1)
            clip = scratch / "clip.wav"
            write_wav(clip, [samples[start : start + length]])
            post(address, clip)
            measured.append(read_memory(upload, service, worker))
    return tuple(measured)


def read_memory(upload: int, service: psutil.Process, worker: psutil.Process) -> Sample:
    """Return the memory of both processes now."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    anonymous_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
    sizes_mb = (service.memory_info().rss / 2**20, worker.memory_info().rss / 2**20, anonymous_kb / 2**10)
    return Sample(upload, *(round(size_mb, 2) for size_mb in sizes_mb))


def slope_kb(measured: Sequence[Sample], field: str) -> float:
    """Return the growth per upload in kilobytes: the slope of the least-squares line after the warm-up."""
    rest = measured[WARM_UP:] if len(measured) > WARM_UP + 1 else measured
    slope_mb = np.polyfit([each.upload for each in rest], [getattr(each, field) for each in rest], 1)[0]
    return float(slope_mb) * 2**10


def table(measured: Sequence[Sample]) -> str:
    """Return a Markdown table with every fiftieth sample, and the growth per upload."""
    shown = [each for each in measured if each.upload in (1, 10, len(measured)) or each.upload % ROW_EVERY == 0]
    rows = [[str(each.upload), *(f"{getattr(each, field):.1f}" for field, _, _ in LINES)] for each in shown]
    slopes = [f"kB per upload after {WARM_UP}", *(f"{slope_kb(measured, field):+.1f}" for field, _, _ in LINES)]
    head = ["uploads", *(f"{title} MB" for _, title, _ in LINES)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows, slopes))


def plot(measured: Sequence[Sample]) -> str:
    """Return an SVG picture of the memory by upload."""
    top = max(each.worker_mb for each in measured) * 1.1
    last = measured[-1].upload

    def x_of(upload: int) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * upload / last, 1)

    def y_of(megabytes: float) -> float:
        return round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * megabytes / top, 1)

    drawn = ['<rect width="100%" height="100%" fill="white"/>']
    for megabytes in range(0, int(top) + 1, 100):
        y = y_of(megabytes)
        drawn.append(f'<line x1="{MARGIN}" y1="{y}" x2="{WIDTH - MARGIN}" y2="{y}" stroke="#dddddd"/>')
        drawn.append(f'<text x="{MARGIN - 4}" y="{y}" text-anchor="end" dominant-baseline="middle">{megabytes}</text>')
    drawn += [
        f'<text x="{x_of(upload)}" y="{y_of(0) + 14}" text-anchor="middle">{upload}</text>'
        for upload in range(0, last + 1, 100)
    ]
    for place, (field, title, color) in zip((60, 160, 260), LINES, strict=True):
        points = " ".join(f"{x_of(each.upload)},{y_of(getattr(each, field))}" for each in measured)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        drawn.append(f'<text x="{place}" y="22" fill="{color}">{title}</text>')
    drawn.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">uploads</text>')
    drawn.append(f'<text x="{MARGIN - 4}" y="22" text-anchor="end">MB</text>')
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, *drawn, "</svg>\n"])


if __name__ == "__main__":
    main()
