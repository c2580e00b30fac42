"""Engines by name. A new engine is one folder and one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diarist.errors import EngineUnavailable
from diarist.protocols import Engine
from diarist.settings import Settings


def _embedded(settings: Settings) -> Engine:
    from diarist.engines.embedded import load

    return load(settings)


FACTORIES: Mapping[str, Callable[[Settings], Engine]] = {"embedded": _embedded}
"""Each imports its libraries when it is called, not before."""


def load_engine(settings: Settings) -> Engine:
    """The configured engine, loaded from models that are there.

    Raises:
        ModelError: a model is missing or damaged.
        EngineUnavailable: its libraries cannot be used on this machine.
    """
    try:
        return FACTORIES[settings.engine](settings)
    except ImportError as error:
        raise EngineUnavailable(
            f"The {settings.engine} engine cannot be loaded: {error}. Run `make setup`, or `pip install` Diarist again."
        ) from error
