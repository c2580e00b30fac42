"""``diarist evaluate``: score transcripts of your own recordings."""

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
from diarist.languages import parse_language

if TYPE_CHECKING:
    from diarist.cli.progress_display import ProgressReporter
    from diarist.cli.transcribe import LoadTranscriber, Transcriber
    from diarist.evaluation.hypotheses import Hypothesis
    from diarist.evaluation.reference import Reference
    from diarist.evaluation.scoring import Score
    from diarist.types import StatusProgress

HypothesisSource: TypeAlias = "Callable[[Reference, StatusProgress], Hypothesis]"
"""Returns the hypothesis for one reference."""


@click.command
@click.argument("folder", metavar="REFERENCE_DIR", type=click.Path(path_type=Path))
@click.option("--service", metavar="URL", help="Use a running service, such as http://localhost:5000.")
@click.option("--transcripts", metavar="DIR", type=click.Path(path_type=Path),
              help="Score existing transcripts: NAME.rttm, NAME.json, or both.")  # fmt: skip
@click.option("--json", "output", metavar="FILE", type=click.Path(path_type=Path),
              help="Write counts and rates to this file, or to standard output (-) instead of the table.")  # fmt: skip
@click.option("--language", default="en", show_default=True, metavar="NAME",
              help="Spoken language, such as en, en-US or English; auto detects it.")  # fmt: skip
@click.option("--known-speakers", is_flag=True, help="Use the reference's number of speakers for transcription.")
@engine_options
@click.option("--offline", is_flag=True, help="Never fetch models; fail if one is missing.")
@click.option("-v", "--verbose", is_flag=True, help="Report each stage in a line on standard error.")
@click.pass_obj
def evaluate(
    load: LoadTranscriber | None,
    folder: Path,
    service: str | None,
    transcripts: Path | None,
    output: Path | None,
    language: str,
    known_speakers: bool,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
    model: str | None,
    offline: bool,
    verbose: bool,
) -> None:
    """Score transcripts against references: who speaks when, and what.

    REFERENCE_DIR contains NAME.rttm or NAME.stm, or both, for each recording NAME.wav (or another audio file). Every
    recording is transcribed by the configured engine, unless --service or --transcripts is given. This needs the bench
    extra.

    Exit codes: 0 all scored, 1 some recordings failed (the others are scored), 2 wrong options, 3 no models or engine,
    130 interrupted.
    """
    from diarist.cli.progress_display import progress_reporter
    from diarist.cli.transcribe import configure_logging, exit_on_signals
    from diarist.evaluation import reference
    from diarist.evaluation.scoring import require

    options = {"engine": engine, "diarizer": diarizer, "recognizer": recognizer, "model": model}
    chosen = {name: value for name, value in options.items() if value}
    if service is not None and transcripts is not None:
        raise InvalidOption("--service and --transcripts cannot be combined: give one of them")
    if (chosen or offline) and (service is not None or transcripts is not None):
        raise InvalidOption(
            "--engine, --diarizer, --recognizer, --model and --offline have no effect with --service or --transcripts: "
            "leave them out"
        )
    if known_speakers and transcripts is not None:
        raise InvalidOption("--known-speakers has no effect with --transcripts: leave it out")
    spoken = parse_language(language)
    references = reference.find(folder)
    if transcripts is None and (missing := [each.name for each in references if each.recording is None]):
        advice = f"put {missing[0]}.wav into the folder of its reference"
        raise InvalidOption(f"{folder} has no recording for {', '.join(missing)}: {advice}")
    require()
    configure_logging(verbose=verbose)
    with exit_on_signals(), progress_reporter(verbose=verbose) as report:
        if transcripts is not None:
            get_hypothesis: HypothesisSource = partial(_read_transcripts, transcripts)
        elif service is not None:
            get_hypothesis = partial(_ask_service, service, spoken, known_speakers)
        else:
            get_hypothesis = partial(
                _transcribe_here, _load_transcriber(load, chosen, report, offline), spoken, known_speakers
            )
        scores = score_all(references, get_hypothesis, spoken, report)
    _print_scores(scores, output, spoken)
    if len(scores) < len(references):
        sys.exit(1)


def score_all(
    references: tuple[Reference, ...], get_hypothesis: HypothesisSource, language: str | None, report: ProgressReporter
) -> dict[str, Score]:
    """Return the score of each recording by its name. Recordings that fail are reported and left out.

    Raises:
        InvalidOption, ConfigurationError, ModelError, EngineUnavailable: No recording could be scored.
    """
    from diarist.cli import printable
    from diarist.evaluation.scoring import score

    scores: dict[str, Score] = {}
    last_error: DiaristError | None = None
    for each in references:
        try:
            with report.step(each.name) as progress:
                answer = get_hypothesis(each, progress)
            scores[each.name] = score(each, answer, language=language)
        except (ConfigurationError, ModelError, EngineUnavailable):
            raise
        except DiaristError as error:
            last_error = error
            report.error(f"{printable(each.name)}: {printable(str(error))}")
        except OSError as error:
            report.error(f"{printable(each.name)}: {printable(error.strerror or str(error))}")
        else:
            report.info(f"{printable(each.name)}: scored")
    if not scores:
        raise last_error or InvalidOption("no recording could be scored: the messages above say why")
    return scores


def _load_transcriber(
    load: LoadTranscriber | None, chosen: dict[str, str], report: ProgressReporter, offline: bool
) -> Transcriber:
    from diarist.cli.transcribe import load_transcriber
    from diarist.settings import load_settings

    return (load or load_transcriber)(load_settings(**chosen), report, offline)


def _transcribe_here(
    transcriber: Transcriber, language: str | None, known: bool, reference: Reference, progress: StatusProgress
) -> Hypothesis:
    from diarist.evaluation.hypotheses import from_transcript
    from diarist.types import SpeakerHints, TranscribeOptions

    assert reference.recording is not None
    hints = SpeakerHints(len(reference.speakers)) if known and reference.speakers else SpeakerHints()
    started = time.perf_counter()
    transcript = transcriber(reference.recording, TranscribeOptions(hints, language), progress)
    return from_transcript(transcript, time.perf_counter() - started)


def _ask_service(
    address: str, language: str | None, known: bool, reference: Reference, progress: StatusProgress
) -> Hypothesis:
    from diarist.evaluation.service_client import ask

    assert reference.recording is not None
    fields = {"language": language} if language else {}
    if known and reference.speakers:
        fields["num_speakers"] = str(len(reference.speakers))
    progress("service", 0.0)
    return ask(address, reference.recording, fields)


def _read_transcripts(folder: Path, reference: Reference, progress: StatusProgress) -> Hypothesis:
    from diarist.evaluation.hypotheses import from_files

    progress("reading", 0.0)
    return from_files(folder, reference.name)


def _print_scores(scores: dict[str, Score], output: Path | None, language: str | None) -> None:
    from diarist.cli.output_files import STDIN, write, write_to_stdout
    from diarist.evaluation.report import document, table

    if output == STDIN:
        write_to_stdout(document(scores, language=language))
        return
    if output is not None:
        try:
            write(output, document(scores, language=language), replace=True)
        except OSError as error:
            raise InvalidOption(f"--json {output} cannot be written: {error.strerror or error}") from error
    write_to_stdout(table(scores))
