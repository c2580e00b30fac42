"""``diarist evaluate``: how well Diarist does on recordings of one's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from diarist.cli.engine_options import engine_options
from diarist.errors import ConfigurationError, DiaristError, EngineUnavailable, InvalidOption, ModelError

if TYPE_CHECKING:
    from diarist.cli.progress_display import Reporter
    from diarist.cli.transcribe import Prepare, Transcriber
    from diarist.evaluation.reference import Reference
    from diarist.evaluation.scoring import Score
    from diarist.evaluation.segments import Answer
    from diarist.types import Progress, StatusProgress

Answering: TypeAlias = "Callable[[Reference, StatusProgress], Answer]"
"""Where the answer for one recording comes from."""


@click.command
@click.argument("folder", metavar="REFERENCE_DIR", type=click.Path(path_type=Path))
@click.option("--service", metavar="URL", help="Ask a running service, as http://localhost:5000.")
@click.option("--transcripts", metavar="DIR", type=click.Path(path_type=Path),
              help="Score what is there: NAME.rttm, NAME.json, or both.")  # fmt: skip
@click.option("--json", "output", metavar="FILE", type=click.Path(path_type=Path),
              help="Write counts and rates to this file; - is standard output, and no table.")  # fmt: skip
@click.option("--language", default="en", show_default=True, metavar="CODE",
              help="What is spoken, as en or de; auto detects it.")  # fmt: skip
@click.option("--known-speakers", is_flag=True, help="Tell how many speakers the reference has.")
@engine_options
@click.option("--offline", is_flag=True, help="Never fetch models: fail if one is missing.")
@click.option("-v", "--verbose", is_flag=True, help="Tell on standard error what is done, line by line.")
@click.pass_obj
def evaluate(
    prepare: Prepare | None,
    folder: Path,
    service: str | None,
    transcripts: Path | None,
    output: Path | None,
    language: str,
    known_speakers: bool,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
    offline: bool,
    verbose: bool,
) -> None:
    """Score transcripts against references: who spoke when, and what.

    REFERENCE_DIR holds NAME.rttm or NAME.stm, or both, for each recording NAME.wav (or another kind).
    Every recording is transcribed by the engine that is configured, unless --service or --transcripts says otherwise.
    Needs the bench extra.

    Exit codes: 0 all scored, 1 some recording failed (the others are scored), 2 wrong options, 3 no models or engine,
    130 interrupted.
    """
    from diarist.cli.progress_display import reporter
    from diarist.cli.transcribe import log_to_stderr, signals_unwind
    from diarist.evaluation import reference
    from diarist.evaluation.scoring import require

    chosen = {name: value for name, value in
              (("engine", engine), ("diarizer", diarizer), ("recognizer", recognizer)) if value}  # fmt: skip
    if service is not None and transcripts is not None:
        raise InvalidOption("--service and --transcripts contradict each other: give one")
    if (chosen or offline) and (service is not None or transcripts is not None):
        raise InvalidOption("--engine, --diarizer, --recognizer and --offline are for what is transcribed here")
    if known_speakers and transcripts is not None:
        raise InvalidOption("--known-speakers cannot change transcripts that are there: leave it out")
    spoken = None if language.lower() == "auto" else language.lower()
    references = reference.find(folder)
    if transcripts is None and (missing := [each.name for each in references if each.recording is None]):
        put = f"put {missing[0]}.wav beside the reference"
        raise InvalidOption(f"{folder} has no recording for {', '.join(missing)}: {put}")
    require()
    log_to_stderr(verbose=verbose)
    with signals_unwind(), reporter(verbose=verbose) as report:
        if transcripts is not None:
            answering: Answering = partial(_stored, transcripts)
        elif service is not None:
            answering = partial(_served, service, spoken, known_speakers)
        else:
            answering = partial(_heard, _prepared(prepare, chosen, report, offline), spoken, known_speakers)
        scores = scored(references, answering, spoken, report)
    _show(scores, output, spoken)
    if len(scores) < len(references):
        sys.exit(1)


def scored(
    references: tuple[Reference, ...], answering: Answering, language: str | None, report: Reporter
) -> dict[str, Score]:
    """The score of each recording by its name; those that fail are told of and left out.

    Raises:
        InvalidOption, ConfigurationError, ModelError, EngineUnavailable: nothing could be scored.
    """
    from diarist.cli import printable
    from diarist.evaluation.scoring import score

    scores: dict[str, Score] = {}
    fault: DiaristError | None = None
    for each in references:
        try:
            with report.step(each.name) as progress:
                answer = answering(each, progress)
            scores[each.name] = score(each, answer, language=language)
        except (ConfigurationError, ModelError, EngineUnavailable):
            raise
        except DiaristError as error:
            fault = error
            report.fail(f"{printable(each.name)}: {printable(str(error))}")
        except OSError as error:
            report.fail(f"{printable(each.name)}: {printable(error.strerror or str(error))}")
        else:
            report.note(f"{printable(each.name)}: scored")
    if not scores:
        raise fault or InvalidOption("no recording could be scored: the lines above say why")
    return scores


def _prepared(prepare: Prepare | None, chosen: dict[str, str], report: Reporter, offline: bool) -> Transcriber:
    from diarist.cli.transcribe import prepare_engine
    from diarist.settings import load_settings

    return (prepare or prepare_engine)(load_settings(**chosen), report, offline)


def _heard(
    transcriber: Transcriber, language: str | None, known: bool, reference: Reference, progress: Progress
) -> Answer:
    from diarist.evaluation.segments import answer_of
    from diarist.types import SpeakerHints, TranscribeOptions

    assert reference.recording is not None
    hints = SpeakerHints(len(reference.speakers)) if known and reference.speakers else SpeakerHints()
    started = time.perf_counter()
    transcript = transcriber(reference.recording, TranscribeOptions(hints, language), progress)
    return answer_of(transcript, time.perf_counter() - started)


def _served(address: str, language: str | None, known: bool, reference: Reference, progress: StatusProgress) -> Answer:
    from diarist.evaluation.service_client import ask

    assert reference.recording is not None
    fields = {"language": language} if language else {}
    if known and reference.speakers:
        fields["num_speakers"] = str(len(reference.speakers))
    progress("service", 0.0)
    return ask(address, reference.recording, fields)


def _stored(folder: Path, reference: Reference, progress: StatusProgress) -> Answer:
    from diarist.evaluation.hypotheses import from_files

    progress("reading", 0.0)
    return from_files(folder, reference.name)


def _show(scores: dict[str, Score], output: Path | None, language: str | None) -> None:
    from diarist.cli.output_files import STDIN, write, write_out
    from diarist.evaluation.report import document, table

    if output == STDIN:
        write_out(document(scores, language=language))
        return
    if output is not None:
        try:
            write(output, document(scores, language=language), replace=True)
        except OSError as error:
            raise InvalidOption(f"--json {output} cannot be written: {error.strerror or error}") from error
    write_out(table(scores))
