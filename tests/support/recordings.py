"""Real recordings for the tests, fetched once from a package that contains them, and conversations made from their
speech.

``python tests/support/recordings.py`` fetches missing recordings into ``.cache/recordings``; tests only read that
folder. They come from the source archive of pyannote.audio, whose hash pip verifies before opening it.
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
"""The path in the archive of each file in ``FOLDER``. ``sample`` is a telephone call of two people; the clips are from
AMI meetings."""

VOICES = ("FEE078", "MEE009", "FEE083", "M\N{LATIN CAPITAL LETTER E WITH ACUTE}O069")
"""Speakers of the AMI clips with more than 15 s of speech without overlap: a woman, a man, a woman, a man, in four
rooms."""

FRAME_SAMPLES = 320


@dataclass(frozen=True, slots=True)
class Conversation:
    """A recording with exact ground truth."""

    path: Path
    """A WAV file: 16 kHz, mono, 16 bits."""

    rttm: Path
    duration: float
    turns: tuple[Turn, ...]
    """The turns in order of start. Pauses of more than 0.3 s are not speech."""

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns))


def missing(folder: Path = FOLDER) -> tuple[str, ...]:
    """Return the names of the recordings that have not been fetched yet."""
    return tuple(name for name in FILES if not (folder / name).is_file())


def fetch(folder: Path = FOLDER) -> None:
    """Fetch the missing recordings into ``folder`` with pip, as it is configured.

    Raises:
        subprocess.CalledProcessError: pip could not fetch the archive, or the hash is wrong. pip has printed the
            reason.
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
    """Return the turns of an RTTM file in order, of one recording if it is given."""
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
    """Return the speech of a speaker of ``VOICES`` without overlap, in trimmed parts of about 1 to 6 s."""
    parts: list[Audio] = []
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
            segment = Audio(samples).cut(alone)
            parts += [segment.cut(span) for span in _turns(_speech(segment.samples, pause=0.12))]
    return tuple(parts)


def without_pauses(samples: Samples) -> Samples:
    """Return the speech with its pauses cut out, as video editors do."""
    return np.concatenate([Audio(samples).cut(span).samples for span in _speech(samples, pause=0.06)])


def assemble(
    voices: Mapping[str, Sequence[Audio]],
    folder: Path,
    *,
    name: str = "conversation",
    overlap: float = 0.15,
    noise_db: float = 25.0,
    seed: int = 0,
) -> Conversation:
    """Return a conversation of these speakers with exact ground truth. Equal arguments give identical files.

    Every part is used once. Each speaker has an individual loudness and faint room reverberation. Noise is ``noise_db``
    below the speech. ``overlap`` is the fraction of changes of speaker at which the next speaker starts before the
    previous one has finished.
    """
    rng = np.random.default_rng(seed)
    decks = {who: [parts[i] for i in rng.permutation(len(parts))] for who, parts in voices.items()}
    rooms = {who: _room(rng) for who in voices}
    gains = {who: 0.05 * 10 ** (rng.uniform(-4, 4) / 20) for who in voices}

    placed: list[tuple[float, Samples]] = []
    turns: list[Turn] = []
    cursor, last, free = 0.5, "", dict.fromkeys(voices, 0.0)
    while any(decks.values()):
        rest = {who: len(deck) * (0.15 if who == last else 1.0) for who, deck in decks.items() if deck}
        who = str(rng.choice(list(rest), p=np.array(list(rest.values())) / sum(rest.values())))
        part = decks[who].pop()
        barges_in = bool(last) and who != last and rng.random() < overlap
        start = cursor - rng.uniform(0.2, 1.2) if barges_in else cursor + rng.uniform(0.1, 0.7)
        start = max(start, free[who] + 0.05)  # a speaker never overlaps with themselves
        level = gains[who] / (float(np.sqrt(np.mean(np.square(part.samples)))) + 1e-9)
        placed.append((start, np.convolve(part.samples * level, rooms[who]).astype(np.float32)))
        turns += [Turn(span.shift(start), who) for span in _speech(part.samples)]
        free[who] = start + part.duration
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
    """Return the parts of ``span`` that are at least ``margin`` seconds away from all others, of at least 1.5 s
    each."""
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
    """Return the spans with speech, by loudness relative to the part. Pauses of up to ``pause`` seconds are
    included."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)  # dB, shape (frames,)
    quiet, loud = np.percentile(level, [5, 95])
    step, spans = FRAME_SAMPLES / SAMPLE_RATE, list[Span]()
    for i in np.flatnonzero(level > loud - np.clip(0.65 * (loud - quiet), 15, 35)):
        # 0.06 s on each side keeps the soft first and last sounds of words
        span = Span(max(i * step - 0.06, 0.0), min((i + 1) * step + 0.06, len(frames) * step))
        if spans and span.start - spans[-1].end <= pause:
            span = Span(spans.pop().start, span.end)
        spans.append(span)
    return spans


def _turns(speech: Sequence[Span], longest: float = 6.0) -> list[Span]:
    """Join adjacent speech spans up to ``longest`` seconds. Longer spans are kept whole, and very short ones are
    dropped."""
    turns = list(speech[:1])
    for before, after in pairwise(speech):
        if after.start - before.end <= 0.8 and after.end - turns[-1].start <= longest:
            turns[-1] = Span(turns[-1].start, after.end)
        else:
            turns.append(after)
    return [turn for turn in turns if turn.duration >= 0.8]


def _room(rng: np.random.Generator) -> Samples:
    """Return a synthetic impulse response of a small room: the direct path and a decaying tail of 0.2 s."""
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
        sys.exit("The test recordings could not be fetched. pip printed the reason above. The tests need them once.")
