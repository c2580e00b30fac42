"""Transcribe one recording in Python, show the progress, and save the transcript as text and as subtitles.

    python library.py meeting.mp3

Needs: pip install diarist
"""

import sys
from pathlib import Path

import diarist


def show_progress(stage: str, done: float) -> None:
    print(f"\r{stage}: {done:.0%}".ljust(40), end="", file=sys.stderr)


def main(recording: str) -> None:
    with diarist.load() as model:
        transcript = model.transcribe(recording, on_progress=show_progress)
    print(file=sys.stderr)
    for utterance in transcript.utterances:
        print(f"{utterance.start:8.2f} {utterance.speaker}: {utterance.text}")
    for suffix in (".txt", ".srt"):
        transcript.save(Path(recording).with_suffix(suffix))


if __name__ == "__main__":
    main(sys.argv[1])
