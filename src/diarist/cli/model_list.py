"""The output of ``diarist models list``: a table of at most 80 columns, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diarist.models import Model, ModelStore
    from diarist.models.recommendation import LanguageGroup, Machine

_HEADINGS = {
    "recognition": "Speech recognition",
    "segmentation": "Speaker diarization: segmentation",
    "embedding": "Speaker diarization: embeddings",
    "plda": "Speaker diarization: PLDA",
}
_COLUMNS = "{:>5}  {:>7}  {:>7}  {:<10}  {:<6}  {}"


def table(
    store: ModelStore,
    needed: Sequence[str],
    recommended: Mapping[LanguageGroup, Model],
    machine: Machine,
) -> Iterator[str]:
    """Yield the lines of the table."""
    width = max(len(name) for name in store.models) + 2
    heading = _COLUMNS.format("LANGS", "SIZE", "MEMORY", "LICENSE", "TESTED", "STATE")
    yield f"{'NAME':<{width}} {heading}"
    roles = {model.role for model in store.models.values()}
    for role in (*(role for role in _HEADINGS if role in roles), *sorted(roles - _HEADINGS.keys())):
        yield f"{_HEADINGS.get(role, role)}:"
        for model in store.models.values():
            if model.role == role:
                row = _COLUMNS.format(
                    _languages(model),
                    _rounded(model.disk_bytes),
                    _rounded(model.memory_mb * 10**6) if model.memory_mb else "-",
                    model.licence,
                    "yes" if model.tested else "no",
                    store.state(model.name),
                )
                yield f"{('* ' if model.name in needed else '  ') + model.name:<{width}} {row}"
    yield ""
    yield "* needed by the current settings. LANGS: the language, or their number."
    yield "TESTED: no = the developers of Diarist have never run it with these weights."
    if not recommended:
        return
    memory = f" and {machine.memory_mb / 1024:.0f} GB of memory" if machine.memory_mb else ""
    yield ""
    yield f"Recommended for {machine.cores} core{'s' * (machine.cores > 1)}{memory}, without a GPU:"
    for group, model in recommended.items():
        yield f"  {group:<19} {model.name}{'' if model.tested else ' (not tested)'}"


def as_json(
    store: ModelStore, needed: Sequence[str], recommended: Mapping[LanguageGroup, Model], machine: Machine
) -> Mapping[str, Any]:
    """Return everything that is known about the models."""
    return {
        "models": [_entry(model, store, needed, recommended) for model in store.models.values()],
        "folder": str(store.root),
        "machine": {"cores": machine.cores, "memory_mb": machine.memory_mb},
        "recommended": {group: model.name for group, model in recommended.items()},
    }


def _entry(
    model: Model, store: ModelStore, needed: Sequence[str], recommended: Mapping[LanguageGroup, Model]
) -> Mapping[str, Any]:
    from diarist.models.recommendation import required_memory_mb

    recognizes = model.role == "recognition"
    return {
        "name": model.name,
        "role": model.role,
        "kind": model.kind,
        "licence": model.licence,
        "holder": model.holder,
        "languages": model.languages,
        "quantization": model.quantization,
        "size_bytes": model.size_bytes,
        "disk_bytes": model.disk_bytes,
        "memory_mb": model.memory_mb,
        "estimated_memory_mb": required_memory_mb(model) if recognizes else None,
        "accuracy": [{"figure": each.figure, "source": each.source} for each in model.accuracy],
        "tested": model.tested,
        "state": store.state(model.name),
        "needed": model.name in needed,
        "recommended_for": [group for group, each in recommended.items() if each is model],
        "origin": model.origin,
        "hub": model.hub,
        "revision": model.revision,
        "files": [{"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in model.files],
    }


def _rounded(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _languages(model: Model) -> str:
    if not model.languages:
        return "-"
    return model.languages[0] if len(model.languages) == 1 else str(len(model.languages))
