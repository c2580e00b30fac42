"""``diarist transcribe``: transcribe recordings with the same pipeline as the service."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from diarist.cli.engine_options import engine_options
from diarist.cli.subtitle_flags import subtitle_flags, subtitle_values
from diarist.errors import DiaristError, EngineUnavailable, InvalidOption, ModelError
from diarist.system.console_signals import termination_signals

if TYPE_CHECKING:
    from diarist.channels import ChannelMode
    from diarist.cli.output_files import Existing, Task
    from diarist.cli.progress_display import ProgressReporter
    from diarist.formats import Extras, Format
    from diarist.settings import Settings
    from diarist.tracks import PartialMode
    from diarist.types import StatusProgress, TranscribeOptions, Transcript

Transcriber: TypeAlias = "Callable[[Path, TranscribeOptions, StatusProgress], Transcript]"
"""Transcribes one recording; the progress function receives the progress of the whole recording."""

LoadTranscriber: TypeAlias = "Callable[[Settings, ProgressReporter, bool], Transcriber]"
"""Loads the engine once for all recordings; the last argument forbids fetching models."""

logger = logging.getLogger(__name__)


def _formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Format, ...]:
    from diarist.formats import find

    try:
        return tuple(find(name) for name in dict.fromkeys(part.strip() for part in value.lower().split(",")))
    except InvalidOption as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _speaker_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    from diarist.formats.speaker_names import parse_speaker_names

    if value is None:
        return ()
    try:
        return parse_speaker_names(value)
    except InvalidOption as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-f", "--format", "formats", default="txt", show_default=True, metavar="NAMES", callback=_formats,
              help="json, txt, srt, vtt or rttm; several are separated by commas.")  # fmt: skip
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path),
              help="Write files into this folder; it is created if it does not exist.")  # fmt: skip
@click.option("--beside", is_flag=True, help="Write files into the folder of each recording.")
@click.option("--force", "--overwrite", is_flag=True, help="Replace existing transcripts.")
@click.option("--skip-existing", is_flag=True, help="Skip recordings whose transcripts exist, to resume a batch.")
@click.option("--num-speakers", type=int, metavar="N", help="Exact number of speakers.")
@click.option("--min-speakers", type=int, metavar="N", help="Minimum number of speakers.")
@click.option("--max-speakers", type=int, metavar="N", help="Maximum number of speakers.")
@click.option("--speaker-names", metavar="NAMES", callback=_speaker_names,
              help='Names instead of SPEAKER_00, SPEAKER_01 ..., in the order in which speakers first speak, such as '
                   '"Anna,Ben"; the same for each FILE.')  # fmt: skip
@click.option("--language", default="auto", show_default=True, metavar="NAME",
              help="Spoken language, such as en, en-US or English; auto detects it.")  # fmt: skip
@click.option("--channels", type=click.Choice(["mix", "separate", "auto"]), default="mix", show_default=True,
              metavar="MODE", help="mix, separate (each channel is one speaker, as in recorded calls), or auto "
              "(chosen by the sound).")  # fmt: skip
@click.option("--track", metavar="N|NAME", help="Audio track: its number from 1, default, best (the one with most "
              "speech), or all (each track is one speaker).")  # fmt: skip
@click.option("--partial", type=click.Choice(["refuse", "accept"]), default="refuse", show_default=True,
              help="accept: transcribe what there is of recordings that were cut off.")  # fmt: skip
@click.option("--words", is_flag=True, help="Add each word with its times and confidences (json).")
@click.option("--details", is_flag=True, help="Add speakers, language, models, device and times (json).")
@subtitle_flags
@engine_options
@click.option("--offline", is_flag=True, help="Never fetch models; fail if one is missing.")
@click.option("-v", "--verbose", is_flag=True, help="Report each stage in a line on standard error.")
@click.pass_obj
def transcribe(
    load: LoadTranscriber | None,
    files: tuple[Path, ...],
    formats: tuple[Format, ...],
    output: Path | None,
    beside: bool,
    force: bool,
    skip_existing: bool,
    num_speakers: int | None,
    min_speakers: int | None,
    max_speakers: int | None,
    speaker_names: tuple[str, ...],
    language: str,
    channels: ChannelMode,
    track: str | None,
    partial: PartialMode,
    words: bool,
    details: bool,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
    model: str | None,
    offline: bool,
    verbose: bool,
) -> None:
    """Transcribe recordings and say who speaks when.

    The transcript of one FILE in one format goes to standard output. With several files or formats, or with
    --output, --beside or --skip-existing, transcripts are written to files that are named after the recordings
    (meeting.json), in the current folder or where --output or --beside says. If FILE is -, it is read from standard
    input.

    Exit codes: 0 all done, 1 some recordings failed (the others are done), 2 wrong options, 3 no models or engine,
    130 interrupted.
    """
    from diarist.cli.output_files import plan
    from diarist.cli.progress_display import progress_reporter
    from diarist.formats import Extras
    from diarist.formats.subtitle_options import SUBTITLE_FORMATS, subtitle_options
    from diarist.settings import load_settings
    from diarist.tracks import parse_track
    from diarist.types import SpeakerHints, TranscribeOptions

    names = {each.name for each in formats}
    for requested, option in ((words, "--words"), (details, "--details")):
        if requested and "json" not in names:
            raise InvalidOption(f"{option} needs --format json: the other formats cannot contain them")
    if output is not None and beside:
        raise InvalidOption("--output and --beside cannot be combined: give one of them")
    if force and skip_existing:
        raise InvalidOption("--force and --skip-existing cannot be combined: give one of them")
    given = dict(subtitle_values())
    if given and names.isdisjoint(SUBTITLE_FORMATS):
        raise InvalidOption(f"--subtitle-{next(iter(given)).replace('_', '-')} needs --format srt or vtt")
    preset = given.pop("preset", None)
    subtitles = subtitle_options(None if preset is None else str(preset), given)
    hints = SpeakerHints(num_speakers, min_speakers, max_speakers)
    options = TranscribeOptions(hints, language, channels, parse_track(track), partial)
    chosen = {"engine": engine, "diarizer": diarizer, "recognizer": recognizer, "model": model}
    settings = load_settings(**{name: value for name, value in chosen.items() if value is not None})
    existing: Existing = "replace" if force else "skip" if skip_existing else "refuse"
    tasks = _without_skipped(plan(files, formats, output, beside=beside, existing=existing))
    if not tasks:
        return
    configure_logging(verbose=verbose)
    with exit_on_signals(), progress_reporter(verbose=verbose) as report:
        transcriber = (load or load_transcriber)(settings, report, offline)
        extras = Extras(words, details, subtitles, speaker_names)
        failures = transcribe_all(tasks, options, transcriber, report, extras, replace=force)
    if failures:
        sys.exit(1)


def _without_skipped(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks that have outputs, and tell the user which have none, because all their files exist."""
    for task in tasks:
        if not task.outputs:
            click.echo(f"diarist: {task.display_name}: skipped, because its transcripts exist", err=True)
    return tuple(task for task in tasks if task.outputs)


def load_transcriber(settings: Settings, report: ProgressReporter, offline: bool) -> Transcriber:
    """Load the models as ``diarist.load`` does: missing and damaged ones are fetched first, unless ``offline``.

    Raises:
        ModelError: A model cannot be fetched.
        EngineUnavailable: The engine cannot be loaded.
    """
    from diarist.library.model import Model
    from diarist.models.selection import log_untested

    with report.step("models") as progress:
        model = Model(settings, offline=offline, on_progress=progress)
    log_untested(settings)

    def transcribe_one(path: Path, options: TranscribeOptions, progress: StatusProgress) -> Transcript:
        hints = options.hints
        return model.transcribe(
            path, num_speakers=hints.num_speakers, min_speakers=hints.min_speakers, max_speakers=hints.max_speakers,
            language=options.language, channels=options.channels, track=options.track, partial=options.partial,
            on_progress=progress,
        )  # fmt: skip

    return transcribe_one


def transcribe_all(
    tasks: Sequence[Task],
    options: TranscribeOptions,
    transcriber: Transcriber,
    report: ProgressReporter,
    extras: Extras,
    *,
    replace: bool,
) -> int:
    """Transcribe the recordings one after the other, write the transcripts, and return the number of failures.

    Raises:
        InvalidOption: An option is invalid for every recording.
        ModelError, EngineUnavailable: No recording can be transcribed.
        ServiceError: Standard output cannot be written.
    """
    failures = 0
    for task in tasks:
        result = _transcribe_one(task, options, transcriber, report, extras)
        if result is None or not _write_outputs(task, result[1], report, replace=replace):
            failures += 1
        else:
            report.info(f"{task.display_name}: {summary(result[0])}")
    return failures


def summary(transcript: Transcript) -> str:
    """Return one line about a transcript: duration, speakers, language, processing time and models."""
    speakers = len(transcript.speakers)
    language = f" in {transcript.language}" if transcript.language else ""
    took = sum(timing.seconds for timing in transcript.timings)
    parts = [name for name in (transcript.diarization.diarizer, transcript.recognizer) if name]
    by = f" by {' and '.join(parts)}" if parts else ""
    return (
        f"{transcript.duration:.1f} s, {speakers} speaker{'s' * (speakers != 1)}{language};"
        f" took {took:.1f} s{by} on {transcript.device}"
    )


def _transcribe_one(
    task: Task, options: TranscribeOptions, transcriber: Transcriber, report: ProgressReporter, extras: Extras
) -> tuple[Transcript, list[str]] | None:
    """Return the transcript and its text in each of the task's formats, or None after reporting a failure."""
    from diarist.cli import printable
    from diarist.cli.output_files import regular_file
    from diarist.formats.speaker_names import unused_names_warning

    try:
        with report.step(task.display_name) as progress, regular_file(task.recording) as path:
            transcript = transcriber(path, options, progress)
        unused = unused_names_warning(transcript, extras.speaker_names)
        if unused is not None:
            report.error(f"{task.display_name}: warning: {printable(unused)}")
        return transcript, [each.render(transcript, task.name, extras) for each, _ in task.outputs]
    except (InvalidOption, ModelError, EngineUnavailable):
        raise
    except DiaristError as error:
        _report_failure(task, str(error), error, report)
    except OSError as error:
        _report_failure(task, error.strerror or str(error), error, report)
    except Exception as error:  # the other recordings may succeed  # noqa: BLE001
        _report_failure(
            task, f"this is a bug in diarist ({type(error).__name__}: {error}); -v shows where", error, report
        )
    return None


def _write_outputs(task: Task, texts: Sequence[str], report: ProgressReporter, *, replace: bool) -> bool:
    from diarist.cli.output_files import write, write_to_stdout

    for (_, path), text in zip(task.outputs, texts, strict=True):
        if path is None:
            write_to_stdout(text)
            continue
        try:
            write(path, text, replace=replace)
        except OSError as error:
            _report_failure(task, f"{path} cannot be written: {error.strerror or error}", error, report)
            return False
        report.info(f"{task.display_name}: written to {path}")
    return True


def _report_failure(task: Task, message: str, error: Exception, report: ProgressReporter) -> None:
    from diarist.cli import printable

    logger.info("%s failed", task.display_name, exc_info=error)
    report.error(f"{task.display_name}: {printable(message)}")


def configure_logging(*, verbose: bool) -> None:
    """Log warnings of all libraries, and Diarist's own information if ``verbose``."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("diarist").setLevel(logging.INFO if verbose else logging.WARNING)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn ``termination_signals`` into ``SystemExit``, so that ``finally`` blocks remove temporary files."""

    def exit_with(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {
        number: signal.signal(number, exit_with)
        for number in termination_signals()
        if signal.getsignal(number) == signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
