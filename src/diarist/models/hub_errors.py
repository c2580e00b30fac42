"""Errors of the hub's client in words that say what to do.

The client raises errors of its own and of its HTTP library, which is another one in other versions of huggingface_hub.
They are therefore recognized by the names of their classes and modules.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Collection

from diarist.models.catalog import Model, ModelFile

_MODULES = frozenset({"huggingface_hub", "httpx", "httpx2", "httpcore"})


def is_hub_error(error: Exception) -> bool:
    """Return whether an error comes from the client of the hub or from its HTTP library."""
    return any(base.__module__.partition(".")[0] in _MODULES for base in type(error).__mro__)


def is_transport_error(error: Exception) -> bool:
    """Return whether a connection failed or was interrupted."""
    return "TransportError" in _class_names(error)


def describe(error: Exception, model: Model, file: ModelFile) -> str:
    """Return the reason why a file could not be downloaded, and what to do about it."""
    from huggingface_hub import constants

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return _describe_status(error, status, constants.ENDPOINT, model, file)
    if "OfflineModeIsEnabled" in _class_names(error):
        return "it was not asked, because HF_HUB_OFFLINE is set"
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if not is_transport_error(error):
        return reason
    settings = ["HF_ENDPOINT"] if os.environ.get("HF_ENDPOINT") else []
    if "ProxyError" in _class_names(error) or urllib.request.getproxies().keys() - {"no"}:
        settings.append("the proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)")
    return f"{constants.ENDPOINT} cannot be reached ({reason}): check {' and '.join(settings) or 'the network'}"


def _describe_status(error: Exception, status: int, endpoint: str, model: Model, file: ModelFile) -> str:
    page = f"{endpoint}/{model.hub}"
    names = _class_names(error)
    gated = "GatedRepoError" in names
    if gated or status in (401, 403):
        return (
            f"{model.hub} is {'gated' if gated else 'not public'} (status {status}): accept the conditions at"
            f" {page}{'' if gated else ', if it has any'}, and set HF_TOKEN to a token of that account that may read it"
        )
    reasons = {
        404: f"{page} has no file {file.name} in revision {model.revision or 'main'}",
        407: "the proxy refuses the connection (status 407): check its user and password in HTTPS_PROXY or HTTP_PROXY",
    }
    if "RepositoryNotFoundError" in names:
        return f"{page} was not found"
    return reasons.get(status, f"{endpoint} answered with the status {status} for {file.name}: try again later")


def _class_names(error: Exception) -> Collection[str]:
    return {base.__name__ for base in type(error).__mro__}
