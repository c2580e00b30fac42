"""``diarist transcribe``: recordings in, transcripts out, by the same pipeline as the service's."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from diarist.cli.engine_options import engine_options
from diarist.errors import DiaristError, EngineUnavailable, InvalidOption, ModelError

if TYPE_CHECKING:
    from diarist.cli.output_files import Task
    from diarist.cli.progress_display import Reporter
    from diarist.formats import Extras, Format
    from diarist.settings import Settings
    from diarist.types import Progress, StatusProgress, TranscribeOptions, Transcript

Transcriber: TypeAlias = "Callable[[Path, TranscribeOptions, Progress], Transcript]"
"""Transcribes one recording; the progress is that of the whole recording."""

Prepare: TypeAlias = "Callable[[Settings, Reporter, bool], Transcriber]"
"""Loads the engine, once for all recordings; the last argument forbids fetching models."""

logger = logging.getLogger(__name__)


def _formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Format, ...]:
    from diarist.formats import find

    try:
        return tuple(find(name) for name in dict.fromkeys(part.strip() for part in value.lower().split(",")))
    except InvalidOption as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-f", "--format", "formats", default="txt", show_default=True, metavar="NAMES", callback=_formats,
              help="json, txt, srt, vtt or rttm; several with commas between.")  # fmt: skip
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path),
              help="Write files into this folder; it is made if need be.")  # fmt: skip
@click.option("--force", "--overwrite", is_flag=True, help="Replace transcripts that are there already.")
@click.option("--num-speakers", type=int, metavar="N", help="There are exactly so many speakers.")
@click.option("--min-speakers", type=int, metavar="N", help="There are at least so many.")
@click.option("--max-speakers", type=int, metavar="N", help="There are at most so many.")
@click.option("--language", metavar="CODE", help="What is spoken, as en or de; detected if not given.")
@click.option("--channels", type=click.Choice(["mix", "separate"]), default="mix", show_default=True,
              help="separate: each channel is one speaker, as in recorded calls.")  # fmt: skip
@click.option("--words", is_flag=True, help="Add each word with its times and confidences (json).")
@click.option("--details", is_flag=True, help="Add speakers, language, models, device and times (json).")
@engine_options
@click.option("--offline", is_flag=True, help="Never fetch models: fail if one is missing.")
@click.option("-v", "--verbose", is_flag=True, help="Tell on standard error what is done, line by line.")
@click.pass_obj
def transcribe(
    prepare: Prepare | None,
    files: tuple[Path, ...],
    formats: tuple[Format, ...],
    output: Path | None,
    force: bool,
    num_speakers: int | None,
    min_speakers: int | None,
    max_speakers: int | None,
    language: str | None,
    channels: str,
    words: bool,
    details: bool,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
    offline: bool,
    verbose: bool,
) -> None:
    """Say who said what, when, in recordings.

    One FILE in one format goes to standard output. Several files or formats, or --output, give files named after
    the recordings (meeting.json), in the current folder unless --output names another. A FILE that is - is read
    from standard input.

    Exit codes: 0 all done, 1 some recording failed (the others are done), 2 wrong options, 3 no models or engine,
    130 interrupted.
    """
    from diarist.cli.output_files import plan
    from diarist.cli.progress_display import reporter
    from diarist.formats import Extras
    from diarist.settings import load_settings
    from diarist.types import SpeakerHints, TranscribeOptions

    for asked, option in ((words, "--words"), (details, "--details")):
        if asked and all(each.name != "json" for each in formats):
            raise InvalidOption(f"{option} needs --format json: the other formats have no place for them")
    hints = SpeakerHints(num_speakers, min_speakers, max_speakers)
    options = TranscribeOptions(hints, language and language.lower(), "separate" if channels == "separate" else "mix")
    chosen = {"engine": engine, "diarizer": diarizer, "recognizer": recognizer}
    settings = load_settings(**{name: value for name, value in chosen.items() if value is not None})
    tasks = plan(files, formats, output, replace=force)
    log_to_stderr(verbose=verbose)
    with signals_unwind(), reporter(verbose=verbose) as report:
        transcriber = (prepare or prepare_engine)(settings, report, offline)
        failures = work(tasks, options, transcriber, report, Extras(words, details), replace=force)
    if failures:
        sys.exit(1)


def prepare_engine(settings: Settings, report: Reporter, offline: bool) -> Transcriber:
    """Fetch the models that are missing or damaged, unless ``offline``, and load the engine.

    Raises:
        ModelError: a model cannot be had.
        EngineUnavailable: the engine cannot be loaded.
    """
    from diarist.models import ModelStore, required

    store = ModelStore.of(settings)
    for name in required(settings):
        try:
            store.locate(name)
        except ModelError:
            with report.step(name) as progress:
                store.pull(name, partial(_fetching, progress), offline=offline)
    with report.step("engine") as progress:
        progress("loading", 0.0)
        from diarist.audio import DecodeLimits
        from diarist.engines.registry import load_engine
        from diarist.pipeline.transcription import transcribe as run_pipeline

        engine = load_engine(settings)
    limits = DecodeLimits.of(settings)
    return lambda path, options, progress: run_pipeline(path, engine, options, progress, limits)


def _fetching(progress: StatusProgress, _: str, done_bytes: int, total_bytes: int) -> None:
    progress("fetching", done_bytes / total_bytes if total_bytes else 0.0)


def work(
    tasks: Sequence[Task],
    options: TranscribeOptions,
    transcriber: Transcriber,
    report: Reporter,
    extras: Extras,
    *,
    replace: bool,
) -> int:
    """Transcribe one recording after the other and write what comes out; the number of those that failed.

    Raises:
        InvalidOption: an option that no recording can be transcribed with.
        ModelError, EngineUnavailable: no recording can be transcribed.
        ServiceError: standard output cannot be written.
    """
    failures = 0
    for task in tasks:
        done = _transcribed(task, options, transcriber, report, extras)
        if done is None or not _delivered(task, done[1], report, replace=replace):
            failures += 1
        else:
            report.note(f"{task.shown}: {summary(done[0])}")
    return failures


def summary(transcript: Transcript) -> str:
    """What was heard, and by what, in one line."""
    speakers = len(transcript.speakers)
    language = f" in {transcript.language}" if transcript.language else ""
    took = sum(timing.seconds for timing in transcript.timings)
    parts = [name for name in (transcript.diarization.diarizer, transcript.recognizer) if name]
    by = f" by {' and '.join(parts)}" if parts else ""
    return (
        f"{transcript.duration:.1f} s, {speakers} speaker{'s' * (speakers != 1)}{language};"
        f" took {took:.1f} s{by} on {transcript.device}"
    )


def _transcribed(
    task: Task, options: TranscribeOptions, transcriber: Transcriber, report: Reporter, extras: Extras
) -> tuple[Transcript, list[str]] | None:
    """The transcript, and its text in each of the task's formats; or None, said, where there is none."""
    from diarist.cli.output_files import regular_file

    try:
        with report.step(task.shown) as progress, regular_file(task.recording) as path:
            transcript = transcriber(path, options, progress)
        return transcript, [each.render(transcript, task.name, extras) for each, _ in task.outputs]
    except (InvalidOption, ModelError, EngineUnavailable):
        raise
    except DiaristError as error:
        _fail(task, str(error), error, report)
    except OSError as error:
        _fail(task, error.strerror or str(error), error, report)
    except Exception as error:  # the other recordings are not to blame  # noqa: BLE001
        _fail(task, f"this is a fault in diarist ({type(error).__name__}: {error}); -v shows where", error, report)
    return None


def _delivered(task: Task, texts: Sequence[str], report: Reporter, *, replace: bool) -> bool:
    from diarist.cli.output_files import write, write_out

    for (_, path), text in zip(task.outputs, texts, strict=True):
        if path is None:
            write_out(text)
            continue
        try:
            write(path, text, replace=replace)
        except OSError as error:
            _fail(task, f"{path} cannot be written: {error.strerror or error}", error, report)
            return False
        report.note(f"{task.shown}: written to {path}")
    return True


def _fail(task: Task, message: str, error: Exception, report: Reporter) -> None:
    from diarist.cli import printable

    logger.info("%s failed", task.shown, exc_info=error)
    report.fail(f"{task.shown}: {printable(message)}")


def log_to_stderr(*, verbose: bool) -> None:
    """Warnings of all, and what Diarist notes if ``verbose``."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("diarist").setLevel(logging.INFO if verbose else logging.WARNING)


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Let a polite kill, or a closed terminal, run the ``finally`` blocks that remove temporary files."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    # Under nohup SIGHUP is ignored, and stays so.
    before = {number: signal.signal(number, leave) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
