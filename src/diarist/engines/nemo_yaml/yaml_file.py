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
    config_dir = settings.model_config_dir
    is_default = config_dir == type(settings).model_fields["model_config_dir"].default
    if not is_default and not config_dir.is_dir():
        message = (
            f"MODEL_CONFIG_DIR={config_dir} is not a folder: set it to a folder with {kind}_{name}.yaml, or unset it."
        )
        raise ConfigurationError(message)
    folders = [config_dir, shipped_folder()] if is_default else [config_dir]
    for folder in folders:
        if (path := folder / f"{kind}_{name}.yaml").is_file():
            return path
    found = sorted({path.stem.removeprefix(f"{kind}_") for folder in folders for path in folder.glob(f"{kind}_*.yaml")})
    advice = f"set {setting} to one of the existing files: {', '.join(found)}" if found else "create it"
    raise ConfigurationError(f"There is no {kind}_{name}.yaml in {' or '.join(map(str, folders))}: {advice}.")


def shipped_folder() -> Path:
    """Return the folder of the shipped configurations: in the installed package, or in the source tree."""
    package = Path(diarist.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


class InvalidValue(Exception):
    """Raised by a check; the message says what the value must be, as in "a number from 0 to 1"."""


Check: TypeAlias = Callable[[Any], Any]
"""Returns the value in the form in which it is used, or raises ``InvalidValue``."""

Schema: TypeAlias = Mapping[str, Any]
"""Maps each key to a ``Check``, or to the schema of a nested mapping."""


def number(minimum: float, maximum: float, *, exclusive_minimum: bool = False) -> Check:
    """Return a check for a finite number in a range; ``exclusive_minimum`` excludes ``minimum`` itself."""

    def check(value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value <= maximum
        if not fits or (exclusive_minimum and value == minimum):
            lower = f"above {minimum:g} and up to" if exclusive_minimum else f"from {minimum:g} to"
            raise InvalidValue(f"a number {lower} {maximum:g}")
        return float(value)

    return check


def integer(minimum: int, maximum: int = 10**6) -> Check:
    """Return a check for an integer in a range."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise InvalidValue(f"an integer from {minimum} to {maximum}")
        return value

    return check


def boolean(value: Any) -> bool:
    """Check for a YAML Boolean."""
    if not isinstance(value, bool):
        raise InvalidValue("true or false")
    return value


def non_blank_text(value: Any) -> str:
    """Check for a string that is not blank, and strip it."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue("a name or a path")
    return value.strip()


def one_of(*allowed: Any) -> Check:
    """Return a check for one of the allowed values, which are strings, true, false or null."""

    def check(value: Any) -> Any:
        # by identity, because 0 == False in Python, but not in YAML
        if not any(value is option or (isinstance(value, str) and value == option) for option in allowed):
            raise InvalidValue(
                " or ".join("false" if option is False else repr(option) for option in allowed if option is not None)
            )
        return value

    return check


def nullable(check: Check) -> Check:
    """Return a check that also accepts null."""
    return lambda value: None if value is None else check(value)


def list_of(check: Check) -> Check:
    """Return a check for a list whose every value passes ``check``; a single value is a list of one."""

    def checked(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise InvalidValue("at least one number")
        return tuple(check(item) for item in values)

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

    def is_set(self, key: str) -> bool:
        """Return whether the key at a path has a value other than null, false, an empty string or ``???``."""
        node: Any = self._raw
        for name in key.split("."):
            if not isinstance(node, dict) or name not in node:
                return False
            node = node[name]
        return node not in (None, False, "", "???")

    def resolve_model_path(self, model: str) -> str:
        """Return the name of a model unchanged; resolve the path of a ``.nemo`` file relative to this file's folder."""
        if not model.endswith(".nemo"):
            return model
        return str(self.path.parent / Path(model).expanduser())

    def error(self, key: str, problem: str, advice: str) -> ConfigurationError:
        """Return an error that names the file and the key, and says what is wrong and what to do."""
        return ConfigurationError(f"{self.path}: {f'{key} ' if key else ''}{problem}: {advice}.")

    def _load(self) -> Mapping[str, Any]:
        try:
            content = self.path.read_text(encoding="utf-8")
            raw = yaml.safe_load(content)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path} cannot be read as UTF-8 text: {error}.") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"{self.path} is not valid YAML: {reason}") from error
        if not isinstance(raw, dict):
            raise self.error("", f"contains {_describe_type(raw)}", "it must contain keys and values")
        return raw

    def _walk(self, raw: Mapping[Any, Any], schema: Schema, prefix: str) -> Iterator[tuple[str, Any]]:
        """Yield the path and the value of every key that is present."""
        for name, raw_value in raw.items():
            key = f"{prefix}{name}"
            if name not in schema:
                raise self.error(key, "is unknown", self._suggest(str(name), schema, prefix))
            check = schema[name]
            if check is ignored:
                continue
            value = self._resolve(raw_value, key, ())
            if isinstance(check, dict):
                if value is None:
                    continue
                if not isinstance(value, dict):
                    raise self.error(
                        key, f"is {_describe_type(value)}", f"it must have keys of its own: {', '.join(check)}"
                    )
                yield from self._walk(value, check, f"{key}.")
            elif value == "???":
                raise self.error(key, "is ???, which marks a missing value", "give a value")
            else:
                try:
                    yield key, check(value)
                except InvalidValue as error:
                    raise self.error(key, f"is {_shorten(value)}", f"it must be {error}") from error

    def _resolve(self, value: Any, key: str, visited: tuple[str, ...]) -> Any:
        """Return a value with every ``${another.key}`` replaced by the value of that key."""
        if isinstance(value, list):
            return [self._resolve(item, key, visited) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        reference = _REFERENCE.fullmatch(value)
        if reference:
            return self._resolve_reference(reference[1].strip(), key, visited)
        resolved = _REFERENCE.sub(lambda match: str(self._resolve_reference(match[1].strip(), key, visited)), value)
        if "${" in resolved:
            raise self.error(key, f"is {_shorten(value)}, which cannot be resolved", "write the value itself")
        return resolved

    def _resolve_reference(self, target: str, key: str, visited: tuple[str, ...]) -> Any:
        if target in visited:
            raise self.error(key, f"refers to {target}, which refers back to itself", "write the value itself")
        node: Any = self._raw
        for name in target.split("."):
            if not isinstance(node, dict) or name not in node:
                raise self.error(
                    key, f"refers to ${{{target}}}, which is not a key of this file",
                    "write the value itself: only ${another.key} is resolved, from the top level of the file",
                )  # fmt: skip
            node = node[name]
        return self._resolve(node, key, (*visited, target))

    def _suggest(self, name: str, schema: Schema, prefix: str) -> str:
        """Return advice for an unknown key: a similar key here, a key of that name elsewhere, or all keys here."""
        if similar := difflib.get_close_matches(name, schema, n=1):
            return f"the most similar key is {prefix}{similar[0]}"
        elsewhere = [path for path in _paths(self._schema) if path.rpartition(".")[2] == name]
        if elsewhere:
            return f"it belongs at {' or '.join(elsewhere)}"
        return f"the keys here are {', '.join(schema)}"


def _paths(schema: Schema, prefix: str = "") -> Iterator[str]:
    for name, check in schema.items():
        yield f"{prefix}{name}"
        if isinstance(check, dict):
            yield from _paths(check, f"{prefix}{name}.")


def _describe_type(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _shorten(value: Any) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
