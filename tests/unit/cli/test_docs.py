"""The pages of the documentation that show commands and output formats agree with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from diarist.channels import ChannelChoice
from diarist.cli import COMMANDS, main
from diarist.formats import FORMATS, render
from diarist.tracks import AudioTracks
from diarist.types import Diarization, Span, Timing, Transcript, Turn, Utterance, Word

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


CONSOLE = blocks("cli.md", "console")
MODELS = blocks("models.md", "console")
EXAMPLES = blocks("cli.md", "sh")


def said(text: str, *times: tuple[float, float], speaker: str) -> Utterance:
    words = [f" {word}" for word in text.split()]
    return Utterance(tuple(Word(w, Span(*t), speaker, 0.91, 0.97) for w, t in zip(words, times, strict=True)))


CALL = Transcript(
    utterances=(
        said("Hello?", (6.69, 7.05), speaker="SPEAKER_00"),
        said(
            "Hi, it's me. Are you in?",
            (7.1, 7.4),
            (7.5, 7.75),
            (7.8, 8.1),
            (8.6, 8.8),
            (8.8, 9.0),
            (9.0, 9.35),
            speaker="SPEAKER_01",
        ),
    ),
    diarization=Diarization(
        (Turn(Span(6.69, 7.17), "SPEAKER_00"), Turn(Span(7.02, 9.42), "SPEAKER_01")), diarizer="embedded"
    ),
    duration=30.0,
    language="en",
    language_probability=0.99,
    engine="embedded",
    timings=(Timing("decode", 0.031), Timing("diarization", 0.62)),
    recognizer="whisper-base",
    speakers_confidence=0.942,
    channels=ChannelChoice(),
    audio_tracks=AudioTracks((1,), 1),
)


@pytest.mark.parametrize("block", CONSOLE + MODELS, ids=lambda block: block.splitlines()[0])
def test_help_is_as_shown(block):
    command, _, shown = block.partition("\n")
    assert command.startswith("$ diarist ")
    result = CliRunner().invoke(main, command.split()[2:], prog_name="diarist", terminal_width=80)
    assert result.exit_code == 0
    assert shown == result.stdout, f"the block after {command!r} should be:\n{result.stdout}"


def test_the_help_of_each_is_shown():
    assert [block.splitlines()[0] for block in CONSOLE] == [
        "$ diarist --help", "$ diarist transcribe --help", "$ diarist evaluate --help",
        "$ diarist models export --help", "$ diarist keys --help", "$ diarist keys create --help",
        "$ diarist doctor --help",
    ]  # fmt: skip
    assert [block.splitlines()[0] for block in MODELS] == ["$ diarist models --help"]


def test_every_command_is_documented():
    page = (DOCS / "cli.md").read_text()
    assert all(f"diarist {name}" in page for name in COMMANDS)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("block", EXAMPLES)
def test_examples_run(block, folder):
    (folder / "recordings").mkdir()
    for name in ("meeting.wav", "call.wav", "panel.mkv", "talk.mp4", "recordings/a.flac", "recordings/b.flac"):
        (folder / name).write_text("call" if name == "call.wav" else "say Hello.")
    program = Path(__file__).with_name("fake_engine.py")
    script = f"set -euo pipefail\ndiarist() {{ '{sys.executable}' '{program}' \"$@\"; }}\n{block}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout or len(list(folder.rglob("*.json"))) > 0


@pytest.mark.parametrize("name", FORMATS)
def test_output_is_as_shown(name):
    shown = blocks("output.md", name)[0]
    assert shown == render(CALL, name, recording="call")


def test_words_are_as_shown():
    shown = blocks("output.md", "json")[1]
    assert shown == render(CALL, "json", recording="call", words=True)


def test_details_are_as_shown():
    shown = blocks("output.md", "json")[2]
    assert shown == render(CALL, "json", recording="call", details=True)


def test_the_table_of_formats_is_complete():
    page = (DOCS / "output.md").read_text()
    for each in FORMATS.values():
        assert f"| `{each.name}` | `.{each.extension}` | `{each.media_type}` |" in page
