"""Draws docs/architecture.svg, the way of a recording through the code: ``make diagram``.

``tests/unit/test_architecture_page.py`` compares the steps with the calls in the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from diarist.formats import FORMATS
from diarist.types import Stage

TARGET = Path(__file__).with_name("architecture.svg")

WIDTH = 880
MARGIN = 20
BOX_HEIGHT = 62
ROW_HEIGHT = 50
GAP = 36
INK, MUTED, LINE = "#1b3a3f", "#55757a", "#7a9296"
ENTRY, QUEUE, STEP, RESULT = "#e3f1ee", "#f6ecd9", "#ffffff", "#e6e9f5"


@dataclass(frozen=True, slots=True)
class Box:
    """A part outside the pipeline."""

    title: str
    module: str
    note: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step of ``diarist.pipeline.transcription.transcribe``."""

    title: str
    call: str
    """The function or method that the pipeline calls for it."""

    module: str
    """Where the function is, or the protocol that the method belongs to."""

    note: str
    stages: tuple[Stage, ...]
    """The stages of progress that it reports."""


ENTRIES = (
    Box("Command line", "diarist.cli", "files of this machine"),
    Box("Library", "diarist", "scripts and notebooks"),
    Box("HTTP API", "diarist.api", "uploads and URLs"),
)
SERVICE = (
    Box("Worker", "diarist.jobs.workers", "has the models loaded"),
    Box("Job store", "diarist.jobs.db", "SQLite or PostgreSQL"),
)
STEPS = (
    Step("Decode", "read_recording", "diarist.audio", "samples at 16 kHz, by a process with limits", ("decode",)),
    Step(
        "Diarize",
        "diarize",
        "diarist.protocols.Diarizer",
        "who speaks when: turns, which may overlap",
        ("segmentation", "embedding", "clustering"),
    ),
    Step("Remove crosstalk", "find_crosstalk", "diarist.pipeline.crosstalk", "only between several channels", ()),
    Step("Divide", "split_into_sections", "diarist.pipeline.sections", "long speech is cut at pauses", ()),
    Step("Detect the language", "detect", "diarist.protocols.LanguageDetector", "unless the caller gives it", ()),
    Step(
        "Recognize", "recognize", "diarist.protocols.Recognizer", "words with times and confidences", ("recognition",)
    ),
    Step("Attribute", "Attribution", "diarist.pipeline.attribution", "each word gets one speaker", ("attribution",)),
    Step("Finish", "finish", "diarist.pipeline.utterance_finalization", "utterances in order of time", ()),
)
"""The steps in the order in which they are called."""


def svg() -> str:
    """Return the diagram."""
    parts = list(_drawing())
    return "\n".join((*parts, "</svg>", ""))


def _drawing() -> Iterator[str]:
    third = (WIDTH - 2 * MARGIN - 2 * GAP) / 3
    columns = [MARGIN + i * (third + GAP) for i in range(3)]
    service_top = MARGIN + BOX_HEIGHT + GAP
    pipeline_top = service_top + BOX_HEIGHT + GAP
    pipeline_height = 44 + ROW_HEIGHT * len(STEPS) + 10
    result_top = pipeline_top + pipeline_height + GAP
    height = result_top + BOX_HEIGHT + MARGIN
    names = ", ".join(FORMATS)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">\n'
        "<title>The way of a recording through Diarist</title>\n"
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>'
    )
    for box, left in zip(ENTRIES, columns, strict=True):
        yield from _box(box, left, MARGIN, third, ENTRY)
    for box, left in zip(SERVICE, columns[1:], strict=True):
        yield from _box(box, left, service_top, third, QUEUE)
    middles = [left + third / 2 for left in columns]
    bottom = MARGIN + BOX_HEIGHT
    yield _arrow((middles[0], bottom), (middles[0], pipeline_top))
    bypass = columns[1] - GAP / 2
    library = columns[1] + 20
    yield _arrow((library, bottom), (library, bottom + 18), (bypass, bottom + 18), (bypass, pipeline_top))
    yield _arrow((middles[2], bottom), (middles[2], service_top))
    yield _arrow((columns[2], service_top + BOX_HEIGHT / 2), (columns[1] + third, service_top + BOX_HEIGHT / 2))
    yield _arrow((middles[1], service_top + BOX_HEIGHT), (middles[1], pipeline_top))
    yield _rectangle(MARGIN, pipeline_top, WIDTH - 2 * MARGIN, pipeline_height, "#f4f7f7")
    yield _text(MARGIN + 18, pipeline_top + 28, "Pipeline", 16, INK, "bold")
    yield _text(MARGIN + 96, pipeline_top + 28, "diarist.pipeline.transcription.transcribe", 12.5, MUTED, mono=True)
    for number, step in enumerate(STEPS):
        yield from _step(number, step, pipeline_top + 44 + number * ROW_HEIGHT)
    yield _arrow((WIDTH / 2, pipeline_top + pipeline_height), (WIDTH / 2, result_top))
    yield from _box(Box("Transcript", "diarist.formats", f"written as {names}"), columns[0], result_top,
                    WIDTH - 2 * MARGIN, RESULT)  # fmt: skip


def _box(box: Box, left: float, top: float, width: float, fill: str) -> Iterator[str]:
    yield _rectangle(left, top, width, BOX_HEIGHT, fill)
    yield _text(left + 16, top + 26, box.title, 15, INK, "bold")
    yield _text(left + width - 16, top + 26, box.module, 12, MUTED, mono=True, anchor="end")
    yield _text(left + 16, top + 47, box.note, 13, INK)


def _step(number: int, step: Step, top: float) -> Iterator[str]:
    left, width = MARGIN + 12, WIDTH - 2 * MARGIN - 24
    yield _rectangle(left, top, width, ROW_HEIGHT - 8, STEP)
    yield _text(left + 16, top + 26, f"{number + 1}", 14, MUTED, "bold")
    yield _text(left + 40, top + 18, step.title, 14, INK, "bold")
    yield _text(left + 40, top + 35, step.note, 12.5, INK)
    yield _text(left + width - 16, top + 18, step.module, 12, MUTED, mono=True, anchor="end")
    if step.stages:
        stages = "progress: " + ", ".join(step.stages)
        yield _text(left + width - 16, top + 35, stages, 12, MUTED, anchor="end")


def _rectangle(left: float, top: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{LINE}"/>'
    )


def _text(
    x: float, y: float, text: str, size: float, color: str, weight: str = "", *, mono: bool = False, anchor: str = ""
) -> str:
    optional = [
        f' font-weight="{weight}"' if weight else "",
        ' font-family="monospace"' if mono else "",
        f' text-anchor="{anchor}"' if anchor else "",
    ]
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{color}"{"".join(optional)}>{escape(text)}</text>'


def _arrow(*points: tuple[float, float]) -> str:
    path = "L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="1.5" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    TARGET.write_text(svg(), encoding="utf-8")
