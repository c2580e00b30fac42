"""Diarist and its peers side by side, on the same recordings and the same machine: ``make bench``.

    python benchmarks/compare.py FOLDER [--systems diarist,senko,...] [--growth 1,10,60,240] [--no-words]

FOLDER holds recordings with references: ``NAME.wav`` (or another kind) and ``NAME.rttm``, with ``NAME.stm`` where there
is text. Each system runs in a process of its own, one after the other, on the same 16 kHz WAV files. See ``README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import growth
import plots
import tables
from diarist.audio import DecodeLimits, decode
from diarist.errors import DiaristError
from diarist.evaluation.reference import Reference, find, read
from diarist.evaluation.scoring import Score, require, score
from diarist.settings import Settings, load_settings
from diarist.types import Samples, Seconds
from environments import NotInstalled, prepare
from running import Run, run, task_of
from sets import read_sets, set_of
from systems import SYSTEMS, System, answer

ROOT = Path(__file__).parent.parent
BUSY_LOAD = 0.25
"""Load of a core, before anything was started, from which on times are not to be trusted."""


def main() -> None:
    arguments = parse_arguments()
    try:
        require()
        compare(arguments)
    except DiaristError as error:
        sys.exit(str(error))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="recordings with references")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="who takes part; default: %(default)s")
    parser.add_argument("--only", default="", help="names of recordings, comma-separated")
    parser.add_argument("--no-words", action="store_true", help="diarization alone: much faster, no WER")
    parser.add_argument("--language", default="en", help="of the words; 'auto' detects it; default: %(default)s")
    parser.add_argument("--threads", type=int, help="for each system; default: what Diarist takes")
    parser.add_argument("--growth", default="", help="minutes, comma-separated: time and memory by length, as 1,10,60")
    parser.add_argument("--growth-from", default="", help="the recording to repeat for it; default: the longest")
    parser.add_argument("--limit", type=float, default=7_200.0, help="seconds that a system may take in all")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--environments", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip is given for PyTorch; default: %(default)s")
    arguments = parser.parse_args()
    if unknown := set(arguments.systems.split(",")) - SYSTEMS.keys():
        parser.error(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    try:
        arguments.minutes = [float(each) for each in arguments.growth.split(",") if each]
    except ValueError:
        parser.error("--growth takes minutes with commas between them: 1,10,60,240")
    return arguments


def compare(arguments: argparse.Namespace) -> None:
    """Run, score, and write the results.

    Raises:
        DiaristError: a recording or a reference cannot be read.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    settings = load_settings(max_duration_s=50_000.0)
    threads = arguments.threads or settings.threads
    chosen = set(filter(None, arguments.only.split(",")))
    references = [each for each in find(arguments.folder) if each.recording and (not chosen or each.name in chosen)]
    if not references:
        sys.exit(f"{arguments.folder} holds no recording with an RTTM of the same name")
    language = None if arguments.language == "auto" else arguments.language
    systems, absent = ready(arguments)
    sets = read_sets(arguments.folder)
    with tempfile.TemporaryDirectory(prefix="diarist-bench-") as scratch:
        folder = Path(scratch)
        lengths = {each.name: as_wav(each, folder, settings) for each in references}

        def start(system: System, recordings: Sequence[Path], words: bool) -> Run:
            tell(f"{system.title}: {len(recordings)} recording{'s' * (len(recordings) != 1)}")
            python = arguments.environments / system.environment / "bin" / "python"
            task = task_of(recordings, threads, language, words, settings.model_dir)
            return run(system.name, python, task, arguments.limit)

        wavs = [folder / f"{each.name}.wav" for each in references]
        runs = {each.name: start(each, wavs, not arguments.no_words) for each in systems}
        grown = grow(arguments, systems, references, lengths, folder, start)
        scores = {name: scored(name, runs, references, lengths, language) for name in runs}
    result = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(load),
        "threads": threads,
        "words": not arguments.no_words,
        "sets": {each.name: set_of(each.name, sets) for each in references},
        "lengths": lengths,
        "not_run": absent,
        "systems": {name: summary(name, one, scores[name]) for name, one in runs.items()},
        "growth": grown,
    }
    write(result, arguments.out)


def ready(arguments: argparse.Namespace) -> tuple[list[System], dict[str, str]]:
    """The systems that can run, and why the others cannot."""
    wanted = [SYSTEMS[name] for name in dict.fromkeys(arguments.systems.split(","))]
    if arguments.no_words:
        wanted = [each for each in wanted if each.speakers]
    absent: dict[str, str] = {}
    for environment in dict.fromkeys(each.environment for each in wanted):
        if environment == "diarist":  # made by `make bench`: it is what runs this
            continue
        try:
            tell(f"environment for {environment}")
            prepare(environment, arguments.environments, arguments.torch)
        except NotInstalled as error:
            tell(str(error))
            absent |= {each.name: error.why for each in wanted if each.environment == environment}
    return [each for each in wanted if each.name not in absent], absent


def as_wav(reference: Reference, folder: Path, settings: Settings) -> Seconds:
    """Write the recording as every system reads it; its length."""
    assert reference.recording is not None
    audio = decode(reference.recording, DecodeLimits.of(settings))[0]
    growth.write_wav(folder / f"{reference.name}.wav", [audio.samples])
    return audio.duration


def scored(
    name: str,
    runs: Mapping[str, Run],
    references: Sequence[Reference],
    lengths: Mapping[str, Seconds],
    language: str | None,
) -> dict[str, Score]:
    """The scores of a system by recording; words of others than Diarist are faster-whisper's where that took part."""
    scores: dict[str, Score] = {}
    for reference in references:
        output = runs[name].outputs.get(reference.name)
        if output is None:
            continue
        whisper = runs["whisper"].outputs.get(reference.name) if "whisper" in runs else None
        found = answer(output, whisper if SYSTEMS[name].speakers else None, lengths[reference.name])
        scores[reference.name] = score(reference, found, language=language)
    return scores


def summary(name: str, one: Run, scores: Mapping[str, Score]) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "title": SYSTEMS[name].title,
        "speakers": SYSTEMS[name].speakers,
        "failure": one.failure,
        "startup_s": one.startup,
        "peak_mb": one.peak_mb,
        "recordings": {
            recording: {
                "score": asdict(scores[recording]),
                "wall_s": output.wall,
                "cpu_s": output.cpu,
                "stages_s": output.stages,
            }
            for recording, output in one.outputs.items()
        },
    }


def grow(
    arguments: argparse.Namespace,
    systems: Sequence[System],
    references: Sequence[Reference],
    lengths: Mapping[str, Seconds],
    folder: Path,
    start: Callable[[System, Sequence[Path], bool], Run],
) -> list[dict[str, Any]]:
    """Time, memory and accuracy by length, each in a fresh process."""
    if not arguments.minutes:
        return []
    by_name = {each.name: each for each in references}
    source = arguments.growth_from or max(lengths, key=lambda name: lengths[name])
    if source not in by_name:
        sys.exit(f"--growth-from {source}: no such recording; there are {', '.join(by_name)}")
    samples = samples_of(folder / f"{source}.wav")
    turns = (arguments.folder / f"{source}.rttm").read_text(encoding="utf-8-sig")
    rows: list[dict[str, Any]] = []
    for minutes in arguments.minutes:
        recording = growth.stretch(samples, turns, minutes, folder)
        reference = read(recording.with_suffix(".rttm"))
        for system in systems:
            one = start(system, [recording], not arguments.no_words)
            output = one.outputs.get(recording.stem)
            row: dict[str, Any] = {"system": system.name, "minutes": minutes, "source": source, "failure": one.failure}
            row |= {"peak_mb": one.peak_mb, "startup_s": one.startup}
            if output:
                row |= {"wall_s": output.wall, "cpu_s": output.cpu, "stages_s": output.stages}
                if system.speakers:
                    found = score(reference, answer(output, None, minutes * 60))
                    row |= {"der": found.der, "speakers": found.speakers, "found": found.found}
            rows.append(row)
        recording.unlink()
        recording.with_suffix(".rttm").unlink()
    return rows


def samples_of(path: Path) -> Samples:
    return decode(path, DecodeLimits.of(load_settings(max_duration_s=50_000.0)))[0].samples


def commit() -> str:
    """The commit that was measured, with a ``+`` where Diarist's code has changes that are in no commit."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "src"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + "+" * bool(changed.stdout.strip())


def machine(load: float) -> dict[str, Any]:
    """What it ran on; ``busy`` where others were at work on it when it started."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_per_core": round(load, 2),
        "busy": load > BUSY_LOAD,
    }


def processor() -> str:
    """The processor's name, as Linux tells it, else as Python does."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(result: Mapping[str, Any], out: Path) -> None:
    """JSON, Markdown and plots, under one name."""
    out.mkdir(parents=True, exist_ok=True)
    name = f"{str(result['made'])[:10]}-{str(result['commit']).rstrip('+')}"
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    pictures = plots.draw(result, out, name)
    text = tables.report(result, pictures)
    (out / f"{name}.md").write_text(text)
    print(text)
    tell(f"written to {out / name}.json, .md and {len(pictures)} plots")


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
