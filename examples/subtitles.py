"""Write SRT and WebVTT subtitles with the names of the speakers beside a film.

    python subtitles.py film.mkv Anna Ben

The names are those of the speakers in the order in which they first speak.
Needs: pip install diarist
"""

import sys
from pathlib import Path

import diarist


def main(film: Path, names: list[str]) -> None:
    transcript = diarist.transcribe(film, num_speakers=len(names) or None)
    for suffix in (".srt", ".vtt"):
        path = film.with_suffix(suffix)
        transcript.save(path, speaker_names=names)
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
