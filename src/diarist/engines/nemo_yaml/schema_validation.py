"""Lookup, parsing and validation of a YAML configuration file against a schema.

A schema maps keys to their checks and is nested like the file. An unknown key is an error that suggests the most
similar known key, because a misspelled setting that silently has no effect is hard to find.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

import diarist
from diarist.errors import ConfigurationError
from diarist.settings import Settings


def find_config(settings: Settings, kind: str, name: str, setting: str) -> Path:
    """Return the path of ``<kind>_<name>.yaml`` in ``MODEL_CONFIG_DIR``, or of the file that Diarist ships.

    The shipped files are used only if ``MODEL_CONFIG_DIR`` is not set.

    Args:
        settings: The settings, which contain the folder.
        kind: The first part of the file name, ``diar_infer`` or ``sortformer``.
        name: The second part of the file name.
        setting: The setting that contains the name, for the message.

    Raises:
        ConfigurationError: If there is no such file. The message lists the existing files.
    """
    chosen = settings.model_config_dir
    unset = chosen == type(settings).model_fields["model_config_dir"].default
    if not unset and not chosen.is_dir():
        message = f"MODEL_CONFIG_DIR={chosen} is not a folder: set it to a folder with {kind}_{name}.yaml, or unset it."
        raise ConfigurationError(message)
    folders = [chosen, shipped_folder()] if unset else [chosen]
    for folder in folders:
        if (path := folder / f"{kind}_{name}.yaml").is_file():
            return path
    found = sorted({path.stem.removeprefix(f"{kind}_") for folder in folders for path in folder.glob(f"{kind}_*.yaml")})
    there = f"set {setting} to one of the existing files: {', '.join(found)}" if found else "create it"
    raise ConfigurationError(f"There is no {kind}_{name}.yaml in {' or '.join(map(str, folders))}: {there}.")


def shipped_folder() -> Path:
    """Return the folder of the shipped configurations: in the installed package, or in the source tree."""
    package = Path(diarist.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


class Unfit(Exception):
    """Raised by a check; the message says what the value must be, as in "a number from 0 to 1"."""


Check: TypeAlias = Callable[[Any], Any]
"""Returns the value in the form in which it is used, or raises ``Unfit``."""

Schema: TypeAlias = Mapping[str, Any]
"""Maps each key to a ``Check``, or to the schema of a nested mapping."""


def number(least: float, most: float, *, above: bool = False) -> Check:
    """Return a check for a finite number in a range; ``above`` excludes ``least`` itself."""

    def check(value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        if not fits or (above and value == least):
            raise Unfit(f"a number {'above' if above else 'from'} {least:g} {'and up ' if above else ''}to {most:g}")
        return float(value)

    return check


def whole(least: int, most: int = 10**6) -> Check:
    """Return a check for an integer in a range."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Unfit(f"an integer from {least} to {most}")
        return value

    return check


def flag(value: Any) -> bool:
    """Check for a YAML Boolean."""
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def text(value: Any) -> str:
    """Check for a string that is not blank, and strip it."""
    if not isinstance(value, str) or not value.strip():
        raise Unfit("a name or a path")
    return value.strip()


def one_of(*allowed: Any) -> Check:
    """Return a check for one of the allowed values, which are strings, true, false or null."""

    def check(value: Any) -> Any:
        # by identity, because 0 == False in Python, but not in YAML
        if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
            raise Unfit(" or ".join("false" if one is False else repr(one) for one in allowed if one is not None))
        return value

    return check


def or_null(check: Check) -> Check:
    """Return a check that also accepts null."""
    return lambda value: None if value is None else check(value)


def each(check: Check) -> Check:
    """Return a check for a list whose every value passes ``check``; a single value is a list of one."""

    def checked(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise Unfit("at least one number")
        return tuple(check(one) for one in values)

    return checked


def ignored(value: Any) -> Any:
    """Accept any value, for a key of NeMo's files that has no effect in Diarist."""
    return value


_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class ConfigFile:
    """Represents a configuration file that conforms to its schema.

    Args:
        path: The path of the file.
        schema: The keys and their checks.

    Raises:
        ConfigurationError: If the file cannot be read or is invalid. The message names the file and the key.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self._schema = schema
        self._raw = self._load()
        self.values = dict(self._walk(self._raw, schema, ""))
        """The value of every key that is present and has an effect, by its path: ``diarizer.vad.model_path``."""

    def given(self, key: str) -> bool:
        """Return whether the key at a path has a value other than null, false, an empty string or ``???``."""
        at: Any = self._raw
        for name in key.split("."):
            if not isinstance(at, dict) or name not in at:
                return False
            at = at[name]
        return at not in (None, False, "", "???")

    def located(self, model: str) -> str:
        """Return the name of a model unchanged; resolve the path of a ``.nemo`` file relative to this file's folder."""
        if not model.endswith(".nemo"):
            return model
        return str(self.path.parent / Path(model).expanduser())

    def fault(self, key: str, what: str, advice: str) -> ConfigurationError:
        """Return an error that names the file and the key, and says what is wrong and what to do."""
        return ConfigurationError(f"{self.path}: {f'{key} ' if key else ''}{what}: {advice}.")

    def _load(self) -> Mapping[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
            raw = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path} cannot be read as UTF-8 text: {error}.") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"{self.path} is not valid YAML: {said}") from error
        if not isinstance(raw, dict):
            raise self.fault("", f"contains {_kind(raw)}", "it must contain keys and values")
        return raw

    def _walk(self, raw: Mapping[Any, Any], schema: Schema, above: str) -> Iterator[tuple[str, Any]]:
        """Yield the path and the value of every key that is present."""
        for name, given in raw.items():
            key = f"{above}{name}"
            if name not in schema:
                raise self.fault(key, "is unknown", self._suggest(str(name), schema, above))
            rule = schema[name]
            if rule is ignored:
                continue
            value = self._resolve(given, key, ())
            if isinstance(rule, dict):
                if value is None:
                    continue
                if not isinstance(value, dict):
                    raise self.fault(key, f"is {_kind(value)}", f"it must have keys of its own: {', '.join(rule)}")
                yield from self._walk(value, rule, f"{key}.")
            elif value == "???":
                raise self.fault(key, "is ???, which marks a missing value", "give a value")
            else:
                try:
                    yield key, rule(value)
                except Unfit as error:
                    raise self.fault(key, f"is {_shown(value)}", f"it must be {error}") from error

    def _resolve(self, value: Any, key: str, followed: tuple[str, ...]) -> Any:
        """Return a value with every ``${another.key}`` replaced by the value of that key."""
        if isinstance(value, list):
            return [self._resolve(one, key, followed) for one in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole:
            return self._refer(whole[1].strip(), key, followed)
        resolved = _REFERENCE.sub(lambda match: str(self._refer(match[1].strip(), key, followed)), value)
        if "${" in resolved:
            raise self.fault(key, f"is {_shown(value)}, which cannot be resolved", "write the value itself")
        return resolved

    def _refer(self, target: str, key: str, followed: tuple[str, ...]) -> Any:
        if target in followed:
            raise self.fault(key, f"refers to {target}, which refers back to itself", "write the value itself")
        at: Any = self._raw
        for name in target.split("."):
            if not isinstance(at, dict) or name not in at:
                raise self.fault(
                    key, f"refers to ${{{target}}}, which is not a key of this file",
                    "write the value itself: only ${another.key} is resolved, from the top level of the file",
                )  # fmt: skip
            at = at[name]
        return self._resolve(at, key, (*followed, target))

    def _suggest(self, name: str, schema: Schema, above: str) -> str:
        """Return advice for an unknown key: a similar key here, a key of that name elsewhere, or all keys here."""
        if near := difflib.get_close_matches(name, schema, n=1):
            return f"the most similar key is {above}{near[0]}"
        elsewhere = [path for path in _paths(self._schema) if path.rpartition(".")[2] == name]
        if elsewhere:
            return f"it belongs at {' or '.join(elsewhere)}"
        return f"the keys here are {', '.join(schema)}"


def _paths(schema: Schema, above: str = "") -> Iterator[str]:
    for name, rule in schema.items():
        yield f"{above}{name}"
        if isinstance(rule, dict):
            yield from _paths(rule, f"{above}{name}.")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
