"""Transcribe all recordings of a folder with one model, and continue after recordings that fail.

    python batch_folder.py recordings transcripts

Recordings that have a transcript are skipped, so the program can be started again after an interruption.
Needs: pip install diarist
"""

import sys
from pathlib import Path

import diarist


def main(recordings: Path, transcripts: Path) -> int:
    transcripts.mkdir(parents=True, exist_ok=True)
    failed = 0
    with diarist.load() as model:
        for recording in sorted(path for path in recordings.iterdir() if path.is_file()):
            result = transcripts / f"{recording.name}.json"
            if result.exists():
                continue
            try:
                transcript = model.transcribe(recording)
            except diarist.DiaristError as error:
                failed += 1
                print(f"{recording.name}: {error}", file=sys.stderr)
            else:
                transcript.save(result)
                print(f"{recording.name}: {len(transcript.speakers)} speakers, {transcript.duration:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
