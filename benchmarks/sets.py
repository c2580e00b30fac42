"""Assign recordings to sets; scores are pooled over each set and over all recordings.

A ``sets.toml`` in the folder of the recordings defines the sets by prefixes of file names::

    meeting = ["ES", "IS"]
    interviews = ["talk-"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

DEFAULT: Mapping[str, tuple[str, ...]] = {
    "meeting": ("dev", "trn", "tst", "ES", "IS", "TS", "EN"),
    "telephone": ("harper", "sw", "fe_"),
    "sample": ("sample",),
    "simulated": ("sim",),
}
OTHER = "other"


def read_sets(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the sets of a folder: the prefixes by name.

    Raises:
        SystemExit: If its ``sets.toml`` is invalid.
    """
    path = folder / "sets.toml"
    if not path.exists():
        return DEFAULT
    try:
        found = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path} is not valid TOML: {error}") from error
    for name, prefixes in found.items():
        if not (isinstance(prefixes, list) and all(isinstance(prefix, str) for prefix in prefixes)):
            raise SystemExit(f'{path}: {name} must be a list of prefixes of file names: {name} = ["abc"]')
    return {name: tuple(prefixes) for name, prefixes in found.items()}


def set_of(recording: str, sets: Mapping[str, tuple[str, ...]]) -> str:
    """Return the set with the longest prefix that matches the name of the recording, or ``OTHER``."""
    fits = [
        (len(prefix), name) for name, prefixes in sets.items() for prefix in prefixes if recording.startswith(prefix)
    ]
    return max(fits)[1] if fits else OTHER
