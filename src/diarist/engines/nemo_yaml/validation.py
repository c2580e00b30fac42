"""A configuration file in YAML: found, read, checked key by key.

The schema is a mapping of keys to what checks them, nested as the file is. An unknown key is an error that tells which
one may be meant: a setting that is silently without effect costs whoever wrote it a day.
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
    """The file ``<kind>_<name>.yaml`` in ``MODEL_CONFIG_DIR``, or the one that comes with Diarist.

    The latter serves only where ``MODEL_CONFIG_DIR`` was not set: a folder that was chosen is all there is.

    Args:
        settings: say which folder.
        kind: what the file is for.
        name: which one is meant.
        setting: the setting that says so, for the message.

    Raises:
        ConfigurationError: there is no such file; the message lists those that are there.
    """
    chosen = settings.model_config_dir
    unset = chosen == type(settings).model_fields["model_config_dir"].default
    if not unset and not chosen.is_dir():
        message = f"MODEL_CONFIG_DIR={chosen} is not a folder: set it to the one with {kind}_{name}.yaml, or unset it."
        raise ConfigurationError(message)
    folders = [chosen, shipped_folder()] if unset else [chosen]
    for folder in folders:
        if (path := folder / f"{kind}_{name}.yaml").is_file():
            return path
    found = sorted({path.stem.removeprefix(f"{kind}_") for folder in folders for path in folder.glob(f"{kind}_*.yaml")})
    there = f"set {setting} to one of those that are there: {', '.join(found)}" if found else "put it there"
    raise ConfigurationError(f"There is no {kind}_{name}.yaml in {' or '.join(map(str, folders))}: {there}.")


def shipped_folder() -> Path:
    """Where the configurations that come with Diarist lie: in the package, or beside its sources."""
    package = Path(diarist.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


class Unfit(Exception):
    """What a value should have been, in words."""


Check: TypeAlias = Callable[[Any], Any]
"""Gives the value back as it is used; raises ``Unfit``."""

Schema: TypeAlias = Mapping[str, Any]
"""Keys to a ``Check``, or to a schema of what is below them."""


def number(least: float, most: float, *, above: bool = False) -> Check:
    """A finite number in the range; ``above`` leaves ``least`` itself out."""

    def check(value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        if not fits or (above and value == least):
            raise Unfit(f"a number {'above' if above else 'from'} {least:g} {'and up ' if above else ''}to {most:g}")
        return float(value)

    return check


def whole(least: int, most: int = 10**6) -> Check:
    """A whole number in the range."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Unfit(f"a whole number from {least} to {most}")
        return value

    return check


def flag(value: Any) -> bool:
    """True or false, as YAML has them."""
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def text(value: Any) -> str:
    """Text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise Unfit("a name or a path")
    return value.strip()


def one_of(*allowed: Any) -> Check:
    """One of a few words, or of true, false and null."""

    def check(value: Any) -> Any:
        # 0 is False to Python, not to whoever wrote it
        if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
            raise Unfit(" or ".join("false" if one is False else repr(one) for one in allowed if one is not None))
        return value

    return check


def or_null(check: Check) -> Check:
    """Null, or what the check lets through."""
    return lambda value: None if value is None else check(value)


def each(check: Check) -> Check:
    """A list whose every value the check lets through; a value alone is a list of one."""

    def checked(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise Unfit("at least one number")
        return tuple(check(one) for one in values)

    return checked


def ignored(value: Any) -> Any:
    """A key of NeMo's that has no effect here."""
    return value


_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class ConfigFile:
    """A file that holds to its schema.

    Args:
        path: of the file.
        schema: keys to what checks them, or to a schema of their own.

    Raises:
        ConfigurationError: it cannot be read, or holds what cannot be; the message names file and key.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self._schema = schema
        self._raw = self._load()
        self.values = dict(self._walk(self._raw, schema, ""))
        """Of every key that is given and has an effect, by its path, as in ``diarizer.vad.model_path``."""

    def given(self, key: str) -> bool:
        """Whether a key, by its path, is set to something that asks for an effect."""
        at: Any = self._raw
        for name in key.split("."):
            if not isinstance(at, dict) or name not in at:
                return False
            at = at[name]
        return at not in (None, False, "", "???")

    def located(self, model: str) -> str:
        """A model by name, or the path of its ``.nemo`` file; a relative one is meant from where this file lies."""
        if not model.endswith(".nemo"):
            return model
        return str(self.path.parent / Path(model).expanduser())

    def fault(self, key: str, what: str, advice: str) -> ConfigurationError:
        """What is wrong with a key, and what to do."""
        return ConfigurationError(f"{self.path}: {f'{key} ' if key else ''}{what}: {advice}.")

    def _load(self) -> Mapping[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
            raw = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path} cannot be read as UTF-8 text: {error}.") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"{self.path} is not YAML that can be read: {said}") from error
        if not isinstance(raw, dict):
            raise self.fault("", f"holds {_kind(raw)}", "keys and values are needed")
        return raw

    def _walk(self, raw: Mapping[Any, Any], schema: Schema, above: str) -> Iterator[tuple[str, Any]]:
        """The values of every key that is given, by its path."""
        for name, given in raw.items():
            key = f"{above}{name}"
            if name not in schema:
                raise self.fault(key, "is not known", self._suggest(str(name), schema, above))
            rule = schema[name]
            if rule is ignored:
                continue
            value = self._resolve(given, key, ())
            if isinstance(rule, dict):
                if value is None:
                    continue
                if not isinstance(value, dict):
                    raise self.fault(key, f"is {_kind(value)}", f"needs keys of its own: {', '.join(rule)}")
                yield from self._walk(value, rule, f"{key}.")
            elif value == "???":
                raise self.fault(key, "is ???, which stands for what is still to be given", "give it")
            else:
                try:
                    yield key, rule(value)
                except Unfit as error:
                    raise self.fault(key, f"is {_shown(value)}", f"must be {error}") from error

    def _resolve(self, value: Any, key: str, followed: tuple[str, ...]) -> Any:
        """What ``${another.key}`` stands for."""
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
                    key, f"refers to ${{{target}}}, which is no key of this file",
                    "write the value itself: only ${another.key} is followed, from the top of the file",
                )  # fmt: skip
            at = at[name]
        return self._resolve(at, key, (*followed, target))

    def _suggest(self, name: str, schema: Schema, above: str) -> str:
        """The key that was meant: the nearest one here, or one of that name elsewhere."""
        if near := difflib.get_close_matches(name, schema, n=1):
            return f"{above}{near[0]} may be meant"
        elsewhere = [path for path in _paths(self._schema) if path.rpartition(".")[2] == name]
        if elsewhere:
            return f"it belongs at {' or '.join(elsewhere)}"
        return f"what there is here: {', '.join(schema)}"


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
