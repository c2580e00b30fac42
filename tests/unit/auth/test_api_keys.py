"""Keys without a store: the key of the settings."""

from __future__ import annotations

import pytest

from diarist.auth.api_keys import configured_key
from diarist.errors import ConfigurationError
from diarist.settings import Settings


def settings_of(folder, **changes: object) -> Settings:
    return Settings(_env_file=None, data_dir=folder, **changes)


def test_the_key_of_the_settings(tmp_path):
    assert configured_key(settings_of(tmp_path)) is None
    assert configured_key(settings_of(tmp_path, api_key="k" * 20)) == "k" * 20
    with pytest.raises(ConfigurationError, match=r"API_KEY has 19 characters.*20"):
        configured_key(settings_of(tmp_path, api_key="k" * 19))
    for odd in ("k" * 20 + " k", "k" * 20 + ",k", "é" * 20, "k" * 20 + "\n"):
        with pytest.raises(ConfigurationError, match="letters and digits"):
            configured_key(settings_of(tmp_path, api_key=odd))
