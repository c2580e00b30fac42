"""Compare Diarist with other systems on the same recordings and the same machine (``make bench``).

    python benchmarks/compare.py FOLDER [--systems diarist,senko,...] [--rounds 3] [--growth 1,10,60,240] [--no-words]

FOLDER contains recordings with references: ``NAME.wav`` (or another audio file) and ``NAME.rttm``, ``NAME.stm``, or
both. The systems run one after the other, each in a separate process, on the same 16 kHz WAV files. See ``README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import growth
import tables
from diarist.audio import DecodeLimits, decode
from diarist.errors import DiaristError, InvalidOption
from diarist.evaluation.reference import Reference, find
from diarist.evaluation.scoring import Score, require, score
from diarist.settings import Settings, load_settings
from diarist.types import SAMPLE_RATE, Samples, Seconds
from environments import NotInstalled, prepare
from machine import ROOT, commit, machine
from peers import exchange
from rounds import Rounds, run_all
from running import Output, Run, run
from sets import read_sets, set_of
from systems import SYSTEMS, System, select_systems, to_hypothesis

BUSY_SHARE = 0.1
"""Wall times are reported as unreliable if other processes kept more than this share of all cores busy."""


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
    parser.add_argument(
        "--systems", default=",".join(SYSTEMS), help="the systems to run, comma-separated; default: %(default)s"
    )
    parser.add_argument("--only", default="", help="names of recordings, comma-separated; default: all")
    parser.add_argument("--no-words", action="store_true", help="run diarization alone: much faster, no WER")
    parser.add_argument("--language", default="en", help="the spoken language; 'auto' detects it; default: %(default)s")
    parser.add_argument("--threads", type=int, help="threads per system; default: as many as Diarist uses")
    parser.add_argument("--rounds", type=int, default=1, help="number of runs per system; the fastest is kept")
    parser.add_argument("--growth", default="", help="measure time and memory at these minutes, for example 1,10,60")
    parser.add_argument("--growth-from", default="", help="the recording to repeat for --growth; default: the longest")
    parser.add_argument(
        "--growth-systems", default="diarist,whisper,senko", help="the systems for --growth; default: %(default)s"
    )
    parser.add_argument("--limit", type=float, default=7_200.0, help="maximum seconds per system and round")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / ".cache" / "bench", help="folder of the virtual environments"
    )
    parser.add_argument(
        "--torch", default="torch==2.13.0", help="pip arguments that install PyTorch; default: %(default)s"
    )
    arguments = parser.parse_args()
    for option in ("systems", "growth_systems", "only"):
        setattr(arguments, option, [each for each in getattr(arguments, option).split(",") if each])
    if unknown := {*arguments.systems, *arguments.growth_systems} - SYSTEMS.keys():
        parser.error(f"unknown system: {', '.join(sorted(unknown))}; the systems are {', '.join(SYSTEMS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        arguments.minutes = [float(each) for each in arguments.growth.split(",") if each]
    except ValueError:
        parser.error("--growth must be a comma-separated list of minutes, for example 1,10,60,240")
    return arguments


def compare(arguments: argparse.Namespace) -> None:
    """Run and score all systems, and write the results.

    Raises:
        DiaristError: a recording or a reference cannot be read.
    """
    load, measured = os.getloadavg()[0] / (os.cpu_count() or 1), commit()
    settings = load_settings(max_duration_s=50_000.0)
    threads = arguments.threads or settings.threads
    words = not arguments.no_words
    references = find_references(arguments)
    source = growth_source(arguments, references)
    language = None if arguments.language == "auto" else arguments.language
    systems, absent = available_systems(arguments)
    if not systems:
        sys.exit(f"none of these systems can run: {'; '.join(f'{name}: {why}' for name, why in absent.items())}")
    sets = read_sets(arguments.folder)
    with tempfile.TemporaryDirectory(prefix="diarist-bench-") as scratch:
        folder = Path(scratch)
        lengths = {each.name: write_as_wav(each, folder, settings) for each in references}
        warm_up = str(folder / f"{min(lengths, key=lambda name: lengths[name])}.wav")

        def start(system: System, recordings: Sequence[Path]) -> Run:
            print_status(f"{system.title}: {len(recordings)} recording{'s' * (len(recordings) != 1)}")
            python = arguments.environments / system.environment / "bin" / "python"
            task = exchange.Task(
                tuple(map(str, recordings)), threads, language, words and system.words, str(settings.model_dir),
                time.time(), warm_up,
            )  # fmt: skip
            return run(system.script, python, task, arguments.limit)

        wavs = [folder / f"{each.name}.wav" for each in references]
        runs = run_all(systems, arguments.rounds, lambda system: start(system, wavs))
        result: dict[str, Any] = {
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": measured,
            "machine": {**machine(), "load_per_core": round(load, 2)},
            "threads": threads,
            "rounds": arguments.rounds,
            "words": words,
            "sets": {each.name: set_of(each.name, sets) for each in references},
            "lengths": lengths,
            "not_run": absent,
            "systems": {name: summary(SYSTEMS[name], runs, references, lengths, language) for name in runs},
            "growth": [],
        }
        path = result_path(result, arguments.out)
        write(result, path)  # the growth runs, which follow, can take hours
        if source is not None:
            growing = {each.name for each in select_systems(arguments.growth_systems, words=words)}
            result["growth"] = growth.grow(
                [each for each in systems if each.name in growing],
                read_samples(folder / f"{source.name}.wav", settings), source, arguments.minutes, folder, start,
            )  # fmt: skip
            write(result, path)
    print(path.with_suffix(".md").read_text())
    print_status(f"The results are in {path.with_suffix('.md')}, with the .json file and the plots in the same folder.")


def find_references(arguments: argparse.Namespace) -> list[Reference]:
    """Return the requested references that have a recording."""
    found = [each for each in find(arguments.folder) if each.recording is not None]
    if unknown := set(arguments.only) - {each.name for each in found}:
        sys.exit(f"--only {', '.join(sorted(unknown))}: {arguments.folder} contains no such recording with a reference")
    references = [each for each in found if not arguments.only or each.name in arguments.only]
    if not references:
        sys.exit(f"{arguments.folder} contains no recording with an RTTM or STM file of the same name")
    return references


def growth_source(arguments: argparse.Namespace, references: Sequence[Reference]) -> Reference | None:
    """Return the recording that is repeated to measure how time and memory grow, or None if growth is not measured."""
    if not arguments.minutes:
        return None
    if not arguments.growth_from:
        return max(references, key=lambda each: max((turn.span.end for turn in each.turns), default=0.0))
    for each in references:
        if each.name == arguments.growth_from:
            return each
    sys.exit(
        f"--growth-from {arguments.growth_from}: no such recording; the recordings are"
        f" {', '.join(each.name for each in references)}"
    )


def available_systems(arguments: argparse.Namespace) -> tuple[list[System], dict[str, str]]:
    """Return the systems that can run, and by name of each other system the reason why it cannot."""
    wanted = select_systems(arguments.systems, words=not arguments.no_words)
    absent: dict[str, str] = {}
    for environment in dict.fromkeys(each.environment for each in wanted):
        if environment == "diarist":  # `make bench` creates it, and this script runs in it
            continue
        try:
            print_status(f"Preparing the environment of {environment}")
            prepare(environment, arguments.environments, arguments.torch)
        except NotInstalled as error:
            print_status(str(error))
            absent |= {each.name: error.why for each in wanted if each.environment == environment}
    return [each for each in wanted if each.name not in absent], absent


def write_as_wav(reference: Reference, folder: Path, settings: Settings) -> Seconds:
    """Write the recording as the WAV file that every system reads, and return its length."""
    assert reference.recording is not None
    samples = read_samples(reference.recording, settings)
    growth.write_wav(folder / f"{reference.name}.wav", [samples])
    return len(samples) / SAMPLE_RATE


def read_samples(path: Path, settings: Settings) -> Samples:
    return decode(path, DecodeLimits.of(settings))[0].samples


def summary(
    system: System,
    runs: Mapping[str, Rounds],
    references: Sequence[Reference],
    lengths: Mapping[str, Seconds],
    language: str | None,
) -> dict[str, Any]:
    """Return the results of a system as JSON.

    If a system does not recognize words and faster-whisper was run, the words of faster-whisper are scored.
    """
    rounds = runs[system.name]
    recordings: dict[str, Any] = {}
    unscored: list[str] = []
    for reference in references:
        output = rounds.best.outputs.get(reference.name)
        if output is None:
            continue
        whisper = runs["whisper"].best.outputs.get(reference.name) if "whisper" in runs and system.speakers else None
        found, word_error = score_recording(reference, output, whisper, lengths[reference.name], language)
        if word_error:
            unscored.append(f"{reference.name}: {word_error}")
        recordings[reference.name] = {
            "score": asdict(found),
            "wall_s": output.wall,
            "cpu_s": output.cpu,
            "stages_s": output.stages,
        }
    return {
        "title": system.title,
        "speakers": system.speakers,
        "reading_of": system.reading_of,
        "failure": rounds.best.failure,
        "words_unscored": unscored,
        "startup_s": rounds.best.startup,
        "peak_mb": rounds.best.peak_mb,
        "others_cores": round(rounds.best.others, 2),
        "steady": rounds.steady,
        "rounds": {
            "wall_s": rounds.wall,
            "cpu_s": rounds.cpu,
            "others_cores": [round(each, 2) for each in rounds.others],
        },
        "recordings": recordings,
    }


def score_recording(
    reference: Reference, output: Output, whisper: Output | None, length: Seconds, language: str | None
) -> tuple[Score, str | None]:
    """Return the score of a recording, and the reason why its words were not scored, or None if they were."""
    found = to_hypothesis(output, whisper, length)
    try:
        return score(reference, found, language=language), None
    except InvalidOption as error:  # too many speakers to score the words; the diarization is scored
        return score(reference, replace(found, segments=None, words=()), language=language), str(error)


def result_path(result: Mapping[str, Any], out: Path) -> Path:
    """Return the path of the result without a suffix: the day and the commit, and a number if that name is taken."""
    out.mkdir(parents=True, exist_ok=True)
    day = f"{str(result['made'])[:10]}-{str(result['commit']).rstrip('+')}"
    name, number = day, 1
    while (out / f"{name}.json").exists():
        number += 1
        name = f"{day}-{number}"
    return out / name


def write(result: dict[str, Any], path: Path) -> None:
    """Write the JSON, the Markdown page, and the plots under one name."""
    import plots

    rows = [*result["systems"].values(), *result["growth"]]
    result["machine"]["busy"] = any(row["others_cores"] > BUSY_SHARE * result["machine"]["cores"] for row in rows)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    pictures = plots.draw(result, path.parent, path.name)
    path.with_suffix(".md").write_text(tables.report(result, pictures), encoding="utf-8")


def print_status(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
