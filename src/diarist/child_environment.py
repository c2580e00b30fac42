"""The environment of the processes that this one starts, without the secrets that they do not need.

Everything that runs in a process can read its environment, and so can every process of the same user.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from diarist.inference_environment import DEFAULTS
from diarist.settings import Settings

SECRET_SETTINGS = frozenset(name for name, field in Settings.model_fields.items() if not field.repr)
"""The settings that hold secrets. A worker receives those that it needs through a pipe."""

CREDENTIAL_NAMES = frozenset({"hf_token", "hugging_face_hub_token", "pgpassword"})
CREDENTIAL_PREFIXES = ("aws_", "otel_exporter_")
"""Credentials that libraries read from the environment of a worker: for models, databases, recordings and traces."""


def worker_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for a process that runs models: everything except the settings that hold secrets.

    The variables of ``diarist.inference_environment`` are added unless they are set.
    """
    return {**DEFAULTS, **_without_secrets(environment)}


def program_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for another program, such as pip: the credentials that a worker needs are left out too."""
    return {
        name: value
        for name, value in _without_secrets(environment).items()
        if name.lower() not in CREDENTIAL_NAMES and not name.lower().startswith(CREDENTIAL_PREFIXES)
    }


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return everything except the settings that hold secrets, whose names may be in any case of letters."""
    return {name: value for name, value in environment.items() if name.lower() not in SECRET_SETTINGS}
