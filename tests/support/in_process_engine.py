"""The real engine in the process of the test, for the command line: ``CliRunner().invoke(main, args, obj=load)``.

What a test has patched, such as the catalog of models, does not reach the process that the library starts.
"""

from __future__ import annotations

from diarist.audio import DecodeLimits
from diarist.cli.progress_display import ProgressReporter
from diarist.cli.transcribe import Transcriber
from diarist.library.loading import load_engine
from diarist.models.selection import log_untested
from diarist.pipeline.transcription import transcribe
from diarist.settings import Settings


def load(settings: Settings, report: ProgressReporter, offline: bool) -> Transcriber:
    with report.step("models"):
        engine = load_engine(settings, offline=offline)
    log_untested(settings)
    limits = DecodeLimits.of(settings)
    return lambda path, options, progress: transcribe(path, engine, options, progress, limits)
