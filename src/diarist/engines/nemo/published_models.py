"""The models that NVIDIA publishes for NeMo, with their roles, licenses and languages.

Licenses and languages are those on the models' own pages (``origin``), which are authoritative. For a page that could
not be checked, the license refers to the page. This module imports neither PyTorch nor NeMo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from types import MappingProxyType
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["recognition", "diarization", "embedding", "vad"]
"""The purpose of a model."""

CLASSES: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        "recognition": (
            "EncDecCTCModel",
            "EncDecCTCModelBPE",
            "EncDecRNNTModel",
            "EncDecRNNTBPEModel",
            "EncDecRNNTBPEModelWithPrompt",
            "EncDecHybridRNNTCTCModel",
            "EncDecHybridRNNTCTCBPEModel",
            "EncDecHybridRNNTCTCBPEModelWithPrompt",
            "EncDecMultiTaskModel",
        ),
        "diarization": ("SortformerEncLabelModel",),
        "embedding": ("EncDecSpeakerLabelModel",),
        "vad": ("EncDecClassificationModel", "EncDecFrameClassificationModel"),
    }
)
"""The classes of ``nemo.collections.asr.models`` for each role. No other classes are ever instantiated."""

RENAMED_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "EncDecMultiClassificationModel": "EncDecFrameClassificationModel",
        "EncDecHybridRNNTCTCModelBPE": "EncDecHybridRNNTCTCBPEModel",
    }
)
"""The current names of classes in older archives."""

UNKNOWN_LICENCE = "unknown"
"""The license of a model that is not in the list."""

_EUROPEAN_LANGUAGES = (
    "bg", "hr", "cs", "da", "nl", "en", "et", "fi", "fr", "de", "el", "hu", "it", "lv", "lt", "mt", "pl", "pt", "ro",
    "sk", "sl", "es", "sv", "ru", "uk",
)  # fmt: skip
_CANARY_FLASH_LANGUAGES = ("en", "de", "es", "fr")

CC_BY_4 = "CC-BY-4.0"
CC_BY_NC_4 = "CC-BY-NC-4.0"
NVIDIA_OPEN = "NVIDIA Open Model License"


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """Represents a published model."""

    name: str
    """The name on the hub (``nvidia/...``) or in NVIDIA's catalog."""

    role: Role
    class_name: str
    """The class in ``nemo.collections.asr.models``."""

    licence: str
    origin: str
    """The URL of the publisher's page."""

    languages: tuple[str, ...] = ()
    """ISO 639-1 codes; empty if the model does not depend on the language or the languages are unknown."""

    max_speakers: int | None = None
    """The maximum number of speakers that a diarizer can distinguish; None if there is no limit."""

    revision: str | None = None
    """The revision on the hub that is downloaded; None for the newest one."""

    sha256: str | None = None
    """The SHA-256 of the ``.nemo`` file in that revision, as several independent projects state it; None if unknown."""


def find(reference: str) -> PublishedModel | None:
    """Return the published model for a reference: a name with or without the publisher, or a file named after it.

    The name of a file is trusted only for information that is shown; what a file is used for depends on its content.
    """
    return _by_normalized_name().get(normalized_name(reference))


def normalized_name(reference: str) -> str:
    """Return the normalized name of a model: ``x`` for ``nvidia/X``, ``X`` and ``/models/X.nemo``."""
    return PurePath(reference.replace("\\", "/")).name.lower().removesuffix(".nemo")


def languages_by_name(reference: str) -> tuple[str, ...]:
    """Return the languages (ISO 639-1) in a name of the form ``stt_de_...``; empty for other names."""
    match = re.match(r"stt_([a-z]{2}|enes)_", normalized_name(reference))
    if match is None:
        return ()
    # by and ua are country codes; the codes of the languages are be and uk
    return {"enes": ("en", "es"), "by": ("be",), "ua": ("uk",)}.get(match[1], (match[1],))


def languages(reference: str) -> tuple[str, ...]:
    """Return the languages (ISO 639-1) of a recognizer; empty if they are unknown."""
    model = find(reference)
    return model.languages if model and model.languages else languages_by_name(reference)


def licence(reference: str) -> str:
    """Return the license of a model; ``UNKNOWN_LICENCE`` if it is not in the list."""
    model = find(reference)
    return model.licence if model else UNKNOWN_LICENCE


@cache
def _by_normalized_name() -> Mapping[str, PublishedModel]:
    return {normalized_name(model.name): model for model in PUBLISHED_MODELS}


def _hub(
    name: str,
    role: Role,
    class_name: str,
    licence: str | None,
    languages: tuple[str, ...] = (),
    max_speakers: int | None = None,
    revision: str | None = None,
    sha256: str | None = None,
) -> PublishedModel:
    origin = f"https://huggingface.co/nvidia/{name}"
    shown_licence = licence or f"see {origin}"
    return PublishedModel(
        f"nvidia/{name}", role, class_name, shown_licence, origin, languages, max_speakers, revision, sha256
    )


def _catalog(
    name: str, role: Role, class_name: str, languages: tuple[str, ...] = (), sha256: str | None = None
) -> PublishedModel:
    origin = f"https://catalog.ngc.nvidia.com/orgs/nvidia/teams/nemo/models/{name}"
    return PublishedModel(name, role, class_name, f"see {origin}", origin, languages, sha256=sha256)


_TITANET_LARGE_SHA256 = "e838520693f269e7984f55bc8eb3c2d60ccf246bf4b896d4be9bcabe3e4b0fe3"

PUBLISHED_MODELS: tuple[PublishedModel, ...] = (
    _hub(
        "parakeet-tdt-0.6b-v3", "recognition", "EncDecRNNTBPEModel", CC_BY_4, _EUROPEAN_LANGUAGES,
        revision="541d1f99c6b0c3cd0b11a95167540bb8edefd82b",
        sha256="3cbdc85877e668ca7b82d0d56770eb1fac76691f55d6b97545e8d61ca588d10d",
    ),
    _hub(
        "parakeet-tdt-0.6b-v2", "recognition", "EncDecRNNTBPEModel", CC_BY_4, ("en",),
        revision="ae9ad07059c7c739ffaf932226a8fe64ae2620b0",
        sha256="d99e39955c9d3d0350d8fb7c75e40c64a2b2eaeb003883d7c941fd2e8747b28c",
    ),
    _hub("parakeet-tdt_ctc-110m", "recognition", "EncDecHybridRNNTCTCBPEModel", CC_BY_4, ("en",)),
    _hub("parakeet-ctc-1.1b", "recognition", "EncDecCTCModelBPE", None, ("en",)),
    _hub("parakeet-rnnt-1.1b", "recognition", "EncDecRNNTBPEModel", CC_BY_4, ("en",)),
    _hub("canary-1b-v2", "recognition", "EncDecMultiTaskModel", CC_BY_4, _EUROPEAN_LANGUAGES),
    _hub("canary-1b-flash", "recognition", "EncDecMultiTaskModel", CC_BY_4, _CANARY_FLASH_LANGUAGES),
    _hub("canary-180m-flash", "recognition", "EncDecMultiTaskModel", CC_BY_4, _CANARY_FLASH_LANGUAGES),
    _catalog("stt_en_conformer_ctc_large", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalog("stt_en_citrinet_256", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalog("stt_en_citrinet_512", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalog("stt_en_citrinet_1024", "recognition", "EncDecCTCModelBPE", ("en",)),
    _catalog("titanet_large", "embedding", "EncDecSpeakerLabelModel", sha256=_TITANET_LARGE_SHA256),
    _catalog("titanet_small", "embedding", "EncDecSpeakerLabelModel"),
    _catalog("ecapa_tdnn", "embedding", "EncDecSpeakerLabelModel"),
    _hub(
        "speakerverification_en_titanet_large", "embedding", "EncDecSpeakerLabelModel", CC_BY_4,
        revision="0dc382f40121a5fbd34db10a2bb04d826c2be6a8",
        sha256=_TITANET_LARGE_SHA256,
    ),
    _catalog("vad_multilingual_marblenet", "vad", "EncDecClassificationModel"),
    _catalog("vad_telephony_marblenet", "vad", "EncDecClassificationModel"),
    _catalog("vad_multilingual_frame_marblenet", "vad", "EncDecFrameClassificationModel"),
    _hub(
        "frame_vad_multilingual_marblenet_v2.0", "vad", "EncDecFrameClassificationModel", NVIDIA_OPEN,
        revision="9d25eb877d9edab5101ccc843edd04787a6c72c4",
        sha256="84bda37e925ac6fd740c2ced55642cb79f94f81348e1fa0db992ca50d4b09706",
    ),
    _hub("diar_sortformer_4spk-v1", "diarization", "SortformerEncLabelModel", CC_BY_NC_4, max_speakers=4),
    _hub(
        "diar_streaming_sortformer_4spk-v2", "diarization", "SortformerEncLabelModel", CC_BY_4, max_speakers=4,
        revision="84edd514b8ef68004c10086918cd62f2148cbd59",
        sha256="b371afce2c4958186469df33d939936b9746c89f38b10a69cfd2c61254e83329",
    ),
    _hub(
        "diar_streaming_sortformer_4spk-v2.1", "diarization", "SortformerEncLabelModel", NVIDIA_OPEN, max_speakers=4,
        revision="cd03eee90fbec18297ac31b8c21546e596b7f71c",
        sha256="8abd32832159c6ac1148c926b7276f35ba34582c444e559dce1f1253fea42ef8",
    ),
)  # fmt: skip
