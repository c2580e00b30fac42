"""Measure the loading time, the memory and the speed of Parakeet TDT 0.6B on the CPU, beside Whisper base.

    python benchmarks/parakeet.py build FOLDER
    python benchmarks/parakeet.py measure FOLDER RECORDING [--rounds 3] [--threads 2]

``build`` writes models with random weights in the layout, the precisions and the sizes of the published ones, as fp32
and int8, and a catalog that MODEL_CATALOG can name. It needs the extra ``nemo`` and 5 GB of free space. ``measure``
transcribes the recording with each model in a process of its own, in turns, and prints the best of the rounds. On a
machine that does other work, only the processor time and its ratio to that of Whisper base mean anything.

A model with random weights recognizes other words, and a different number of them, which changes the time of the
decoder. ``support.random_asr`` therefore sets the bias of the blank so that about three tokens are recognized per
second of speech, as in real speech. The table reports the words per second, each of 2.2 tokens on average.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from diarist.settings import Settings, load_settings
from machine import machine

NAME = "random-parakeet-tdt-0.6b"
MODELS = ("whisper-base", NAME, f"{NAME}-fp32")
CONFIG = b'{"model_type": "nemo-conformer-tdt", "features_size": 128, "subsampling_factor": 8}'
GRAPHS = ("encoder-model", "decoder_joint-model")
ENTRY = """
[[model]]
name = "{name}"
role = "recognition"
kind = "tdt"
licence = "CC0-1.0"
holder = "nobody"
origin = "https://example.org/random"
languages = ["en"]
features = "nemo-128"
frame_step = 0.08
{quantization}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("folder", type=Path)
    measure_parser = commands.add_parser("measure")
    measure_parser.add_argument("folder", type=Path)
    measure_parser.add_argument("recording", type=Path)
    measure_parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    measure_parser.add_argument("--threads", type=int, default=2, help="CPU_THREADS; default: %(default)s")
    measure_parser.add_argument("--model", help=argparse.SUPPRESS)  # of the process that measures one model
    arguments = parser.parse_args()
    if arguments.command == "build":
        build(arguments.folder.absolute())
    elif arguments.model:
        print(json.dumps(measure_model(arguments.folder, arguments.recording, arguments.model, arguments.threads)))
    else:
        measure(arguments)


def build(folder: Path) -> None:
    """Write both models into ``folder/models``, and their catalog to ``folder/models.toml``."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from diarist.engines.nemo import export_formats
    from support.random_nemo_models import PARAKEET_06B, tdt

    exported, int8 = folder / "models" / f"{NAME}-fp32", folder / "models" / NAME
    for target in (exported, int8):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    with torch.inference_mode():
        model = tdt(folder / "tokenizer", PARAKEET_06B)
        export_formats.write(model, "tdt", NAME, exported, None, lambda step: print(step, flush=True))
    (exported / "features.npz").unlink()  # the published folders have none
    (exported / "config.json").write_bytes(CONFIG)
    decoder = exported / "decoder_joint-model.onnx"
    whole = onnx.load(str(decoder))
    decoder.with_name(f"{decoder.name}.data").unlink()
    onnx.save_model(whole, str(decoder))
    for name in ("vocab.txt", "config.json"):
        shutil.copyfile(exported / name, int8 / name)
    for graph in GRAPHS:  # with the arguments that the publisher names
        print(f"quantizing {graph}", flush=True)
        source, target = exported / f"{graph}.onnx", int8 / f"{graph}.int8.onnx"
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
    entries = (*_entry(int8, 'quantization = "int8"\n'), *_entry(exported, ""))
    (folder / "models.toml").write_text("".join(entries), encoding="utf-8")
    shutil.rmtree(folder / "tokenizer")


def _entry(folder: Path, quantization: str) -> Iterator[str]:
    yield ENTRY.format(name=folder.name, quantization=quantization)
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        yield f'[[model.file]]\nname = "{path.name}"\nbytes = {path.stat().st_size}\nsha256 = "{sha256}"\n'


def measure(arguments: argparse.Namespace) -> None:
    """Measure every model in each round, and print the best results as a table."""
    from diarist.models import ModelStore, required

    for model in MODELS:
        settings = _settings(arguments.folder, model, arguments.threads)
        for name in required(settings):
            ModelStore.of(settings).pull(name)  # so that no process has to compute the hashes
    results: dict[str, list[dict[str, float]]] = {model: [] for model in MODELS}
    for _ in range(arguments.rounds):
        for model in MODELS:
            command = [sys.executable, __file__, "measure", str(arguments.folder), str(arguments.recording),
                       "--model", model, "--threads", str(arguments.threads)]  # fmt: skip
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[model].append(json.loads(run.stdout))
            print(model, run.stdout.strip(), file=sys.stderr, flush=True)
    here = machine()
    print(f"{here['cores']} cores, {here['memory_gb']} GB, {arguments.threads} threads, {arguments.rounds} rounds\n")
    print(
        "| model | load s | all stages: CPU s | of Whisper base | recognition s | times real time | peak MB | words/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    base = min(each["cpu"] for each in results[MODELS[0]])
    for model, runs in results.items():
        best = {key: min(each[key] for each in runs) for key in runs[0]}
        peak = max(each["peak_mb"] for each in runs)
        print(
            f"| {model} | {best['load']:.1f} | {best['cpu']:.1f} | {best['cpu'] / base:.2f} "
            f"| {best['recognition']:.1f} | {best['duration'] / best['recognition']:.1f} | {peak:.0f} "
            f"| {best['words']:.1f} |"
        )


def measure_model(folder: Path, recording: Path, model: str, threads: int) -> dict[str, float]:
    """Load the engine with one model, transcribe the recording, and return the measurements of this process."""
    from diarist.audio import DecodeLimits
    from diarist.engines.registry import load_engine
    from diarist.pipeline.transcription import transcribe
    from diarist.types import TranscribeOptions

    settings = _settings(folder, model, threads)
    started = time.perf_counter()
    engine = load_engine(settings)
    loaded, cpu = time.perf_counter(), time.process_time()
    said = transcribe(
        recording, engine, TranscribeOptions(language="en"), lambda _stage, _done: None, DecodeLimits.of(settings)
    )
    speech = sum(turn.span.duration for turn in said.diarization.turns)
    return {
        "load": loaded - started,
        "recognition": next(timing.seconds for timing in said.timings if timing.stage == "recognition"),
        "cpu": time.process_time() - cpu,
        "duration": said.duration,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "words": len(said.words) / speech,
    }


def _settings(folder: Path, model: str, threads: int) -> Settings:
    return load_settings(
        model=model,
        model_dir=folder / "models",
        model_catalog=folder / "models.toml",
        model_source_dir=load_settings().model_dir,
        cpu_threads=threads,
    )


if __name__ == "__main__":
    main()
