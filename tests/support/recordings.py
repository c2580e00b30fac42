"""Real recordings for the tests: fetched once from a package that ships them, and conversations made of their voices.

``python tests/support/recordings.py`` fetches what is missing into ``.cache/recordings``; tests only read that folder.
The source is the source archive of pyannote.audio, which pip checks against the hash below before it opens it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from diarist.types import SAMPLE_RATE, Audio, Samples, Span, Turn

FOLDER = Path(__file__).parents[2] / ".cache" / "recordings"

ARCHIVE = "pyannote.audio==4.0.7"
ARCHIVE_SHA256 = "3a903dfb5ca711d134cc2522561c9158b186836f5d62e8a57c46c6648e8a8229"
ARCHIVE_ROOT = "pyannote_audio-4.0.7"

FILES = {
    "sample.wav": "src/pyannote/audio/sample/sample.wav",
    "sample.rttm": "src/pyannote/audio/sample/sample.rttm",
    "train.rttm": "tests/data/debug.train.rttm",
    "development.rttm": "tests/data/debug.development.rttm",
    "test.rttm": "tests/data/debug.test.rttm",
    **{
        f"{clip}.wav": f"tests/data/{clip}.wav"
        for clip in ("dev00", "dev01", "trn03", "trn05", "trn06", "trn09", "tst00")
    },
}
"""Name in ``FOLDER``: path in the archive. ``sample`` is two people on a telephone; the clips are from AMI meetings."""

VOICES = ("FEE078", "MEE009", "FEE083", "M\N{LATIN CAPITAL LETTER E WITH ACUTE}O069")
"""Speakers of the AMI clips who speak alone for more than 15 s: a woman, a man, a woman, a man; four rooms."""

FRAME_SAMPLES = 320


@dataclass(frozen=True, slots=True)
class Conversation:
    """A recording with exact ground truth."""

    path: Path
    """WAV, 16 kHz mono 16 bit."""

    rttm: Path
    duration: float
    turns: tuple[Turn, ...]
    """In order of start; pauses over 0.3 s are not speech."""

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns))


def missing(folder: Path = FOLDER) -> tuple[str, ...]:
    """Names of the recordings that are not there yet."""
    return tuple(name for name in FILES if not (folder / name).is_file())


def fetch(folder: Path = FOLDER) -> None:
    """Put every recording into ``folder``, by pip as it is set up; does nothing where all are there.

    Raises:
        subprocess.CalledProcessError: pip could not fetch the archive, or its hash is wrong; pip has said why.
    """
    if not missing(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        wanted = work / "wanted.txt"
        wanted.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ARCHIVE.partition("==")[0],
        ]
        subprocess.run([*pip, "--require-hashes", "--dest", str(work), "--requirement", str(wanted)], check=True)
        (path,) = work.glob("*.tar.gz")
        with tarfile.open(path) as archive:
            for target, member in FILES.items():
                source = archive.extractfile(f"{ARCHIVE_ROOT}/{member}")
                assert source is not None, f"{member} is not in {path.name}"
                part = work / target
                part.write_bytes(source.read())
                part.replace(folder / target)


def read_rttm(path: Path, recording: str | None = None) -> tuple[Turn, ...]:
    """The turns of an RTTM file, in order; of one recording only where it is named."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("SPEAKER ")]
    return tuple(
        sorted(
            Turn(Span(float(row[3]), float(row[3]) + float(row[4])), row[7])
            for row in rows
            if recording in (None, row[1])
        )
    )


def write_rttm(path: Path, recording: str, turns: Iterable[Turn]) -> None:
    lines = (
        f"SPEAKER {recording} 1 {turn.span.start:.3f} {turn.span.duration:.3f} <NA> <NA> {turn.speaker} <NA> <NA>\n"
        for turn in turns
    )
    path.write_text("".join(lines), encoding="utf-8")


def voice(speaker: str, folder: Path = FOLDER) -> tuple[Audio, ...]:
    """What a speaker of ``VOICES`` says with nobody else speaking: pieces of 1 to 6 s or so, cut at pauses, trimmed."""
    pieces: list[Audio] = []
    for path in sorted(folder.glob("???[0-9][0-9].wav")):
        subset = {"trn": "train", "dev": "development", "tst": "test"}[path.stem[:3]]
        turns = read_rttm(folder / f"{subset}.rttm", path.stem)
        own = [turn.span for turn in turns if turn.speaker == speaker]
        others = [turn.span for turn in turns if turn.speaker != speaker]
        if not own:
            continue
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == SAMPLE_RATE
        for alone in (part for span in own for part in _without(span, others, margin=0.15)):
            stretch = Audio(samples).cut(alone)
            pieces += [stretch.cut(span) for span in _turns(_speech(stretch.samples, pause=0.12))]
    return tuple(pieces)


def assemble(
    voices: Mapping[str, Sequence[Audio]],
    folder: Path,
    *,
    name: str = "conversation",
    overlap: float = 0.15,
    noise_db: float = 25.0,
    seed: int = 0,
) -> Conversation:
    """A conversation of these voices with exact ground truth; the same arguments give the same file, byte for byte.

    Every piece is said once. Each voice gets its own loudness and a faint room; noise lies ``noise_db`` below the
    speech; ``overlap`` is the share of changes of speaker in which the next one comes in before the last one is done.
    """
    rng = np.random.default_rng(seed)
    decks = {who: [pieces[i] for i in rng.permutation(len(pieces))] for who, pieces in voices.items()}
    rooms = {who: _room(rng) for who in voices}
    gains = {who: 0.05 * 10 ** (rng.uniform(-4, 4) / 20) for who in voices}

    placed: list[tuple[float, Samples]] = []
    turns: list[Turn] = []
    cursor, last, free = 0.5, "", dict.fromkeys(voices, 0.0)
    while any(decks.values()):
        rest = {who: len(deck) * (0.15 if who == last else 1.0) for who, deck in decks.items() if deck}
        who = str(rng.choice(list(rest), p=np.array(list(rest.values())) / sum(rest.values())))
        piece = decks[who].pop()
        barges_in = bool(last) and who != last and rng.random() < overlap
        start = cursor - rng.uniform(0.2, 1.2) if barges_in else cursor + rng.uniform(0.1, 0.7)
        start = max(start, free[who] + 0.05)  # nobody talks over themselves
        level = gains[who] / (float(np.sqrt(np.mean(np.square(piece.samples)))) + 1e-9)
        placed.append((start, np.convolve(piece.samples * level, rooms[who]).astype(np.float32)))
        turns += [Turn(span.shift(start), who) for span in _speech(piece.samples)]
        free[who] = start + piece.duration
        cursor, last = max(cursor, free[who]), who

    mix = np.zeros(round((cursor + 0.5) * SAMPLE_RATE), dtype=np.float32)
    for start, samples in placed:
        at = round(start * SAMPLE_RATE)
        mix[at : at + len(samples)] += samples[: len(mix) - at]
    noise = np.convolve(rng.standard_normal(len(mix) + 7), np.ones(8), mode="valid").astype(np.float32)
    mix += noise * np.sqrt(np.mean(mix**2) / np.mean(noise**2)) * 10 ** (-noise_db / 20)
    mix *= 0.7 / np.abs(mix).max()

    conversation = Conversation(
        folder / f"{name}.wav", folder / f"{name}.rttm", len(mix) / SAMPLE_RATE, tuple(sorted(turns))
    )
    soundfile.write(conversation.path, mix, SAMPLE_RATE, subtype="PCM_16")
    write_rttm(conversation.rttm, name, conversation.turns)
    return conversation


def _without(span: Span, others: Sequence[Span], margin: float) -> list[Span]:
    """What is left of ``span`` at more than ``margin`` seconds from all others; at least 1.5 s each."""
    parts = [span]
    for other in others:
        cut = Span(other.start - margin, other.end + margin)
        parts = [
            Span(*edges)
            for part in parts
            for edges in ((part.start, min(part.end, cut.start)), (max(part.start, cut.end), part.end))
            if edges[1] - edges[0] >= 1.5
        ]
    return parts


def _speech(samples: Samples, pause: float = 0.3) -> list[Span]:
    """Where there is speech, by loudness against the piece's own; pauses up to ``pause`` seconds belong to it."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)  # dB, shape (frames,)
    quiet, loud = np.percentile(level, [5, 95])
    step, spans = FRAME_SAMPLES / SAMPLE_RATE, list[Span]()
    for i in np.flatnonzero(level > loud - np.clip(0.65 * (loud - quiet), 15, 35)):
        # 0.06 s on each side keeps the soft first and last sounds of words
        heard = Span(max(i * step - 0.06, 0.0), min((i + 1) * step + 0.06, len(frames) * step))
        if spans and heard.start - spans[-1].end <= pause:
            heard = Span(spans.pop().start, heard.end)
        spans.append(heard)
    return spans


def _turns(speech: Sequence[Span], longest: float = 6.0) -> list[Span]:
    """Neighbouring stretches of speech joined up to ``longest`` seconds; longer ones stay whole, specks go."""
    turns = list(speech[:1])
    for before, after in pairwise(speech):
        if after.start - before.end <= 0.8 and after.end - turns[-1].start <= longest:
            turns[-1] = Span(turns[-1].start, after.end)
        else:
            turns.append(after)
    return [turn for turn in turns if turn.duration >= 0.8]


def _room(rng: np.random.Generator) -> Samples:
    """Impulse response of a small room, made up: the direct path, then a decaying tail of 0.2 s."""
    length = SAMPLE_RATE // 5
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length) * rng.uniform(0.01, 0.04)
    tail[0] = 1.0
    return tail.astype(np.float32)


if __name__ == "__main__":
    if missing():
        print(f"Fetching test recordings into {FOLDER}", file=sys.stderr)  # noqa: T201
    try:
        fetch()
    except subprocess.CalledProcessError:
        sys.exit("The test recordings could not be fetched: pip says above why. The tests need them once.")
