"""Names of models as users write them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from diarist.errors import InvalidOption
from diarist.models.catalog import WHISPER_PREFIX, Model


def resolve_name(name: str, models: Mapping[str, Model]) -> str | None:
    """Return the name in the catalog, or None if there is no such model.

    ``whisper-`` may be left out, case does not matter, and the name of the repository on the hub stands for the first
    model whose files are in it.
    """
    lower = name.lower()
    for candidate in (name, lower, WHISPER_PREFIX + lower):
        if candidate in models:
            return candidate
    return next((model.name for model in models.values() if model.hub and model.hub.lower() == lower), None)


def unknown_name(name: str, models: Mapping[str, Model]) -> InvalidOption:
    """Return the error for a name that no model has, with the most similar names."""
    short = {model.removeprefix(WHISPER_PREFIX): model for model in models}
    last = name.lower().rpartition("/")[2]
    similar = difflib.get_close_matches(last, [*models, *short], n=3, cutoff=0.5)
    names = tuple(dict.fromkeys(short.get(each, each) for each in similar))
    hint = f"Did you mean {' or '.join(names)}?" if names else "`diarist models list` shows all of them."
    return InvalidOption(f"There is no model {name!r}. {hint}")
