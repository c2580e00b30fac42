"""The limits of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diarist.settings import Settings
from diarist.types import Seconds

MIN_DURATION_S = 0.01
"""The minimum duration: less contains no speech, and is shorter than a frame of any model."""

SEPARATE_DURATION_FACTOR = 2
"""The maximum total duration of separate channels or tracks, as a multiple of the limit of a mixed recording: each of
them takes as much processing as one."""

MAX_TRACKS = 16
"""The maximum number of audio tracks that are transcribed together, which is that of the channels of a track."""

MAX_IN_MEMORY_S = 600.0
"""The samples of longer recordings are stored in a file, so that at most 38 MB are in memory, for all channels
together."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """The limits of decoding one recording."""

    max_duration_s: Seconds = 14_400.0
    timeout_s: Seconds = 600.0
    memory_mb: int = 2_048
    """The maximum address space of the decoder process beyond its libraries, not counting the samples. On Windows and
    macOS, it is the maximum memory that it takes."""

    folder: Path | None = None
    """The folder for the samples of a long recording, which are stored in an unlinked file. None is the system's folder
    for temporary files."""

    min_free_bytes: int = 0
    """The space that stays free on the disk of the folder."""

    @classmethod
    def of(cls, settings: Settings, folder: Path | None = None) -> DecodeLimits:
        """Return the limits of the settings; MIN_FREE_MB stays free in ``folder`` if one is given."""
        return cls(
            settings.max_duration_s, settings.decode_timeout_s, settings.decode_memory_mb, folder,
            0 if folder is None else settings.min_free_mb * 2**20,
        )  # fmt: skip
