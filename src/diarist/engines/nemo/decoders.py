"""Decoders that return the tokens of a batch of windows, one decoder for each kind of NeMo recognizer.

The models' own ``transcribe()`` is not used: it stores its state in the model, rebuilds the decoder on each call,
centers short clips in a second of silence, and gives a word of a CTC model the start time of the preceding token.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.engines.nemo.canary import CanaryDecoder
from diarist.engines.word_timestamps import LETTER_DURATION_S, Token, Vocabulary
from diarist.errors import ConfigurationError
from diarist.types import Seconds


class Decoder(Protocol):
    """A recognition model together with its decoding method."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The text of each token ID."""
        ...

    @property
    def frame_step(self) -> Seconds:
        """The interval between two output frames."""
        ...

    @property
    def letter_duration(self) -> Seconds:
        """The minimum duration of a letter if the model does not predict when a token ends; otherwise 0."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the model accepts as input, ISO 639-1; empty if it takes no language."""
        ...

    @property
    def default_language(self) -> str | None:
        """The language to pass if the model requires one and it is unknown; None if the model requires none."""
        ...

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:
        """Return the tokens of each window, in order, with times relative to the start of the window.

        Args:
            signal: Samples, float32 (windows, samples), padded at the end.
            lengths: The number of samples of each window, int64 (windows,).
            language: The language of the speech; None if it is unknown.
        """
        ...


def decoder_for(model: Any, name: str) -> Decoder:
    """Return the decoder for ``model``, whose decoding strategy it configures.

    Raises:
        ConfigurationError: If the model does not output word timestamps.
    """
    from nemo.collections.asr.models import EncDecCTCModel, EncDecMultiTaskModel, EncDecRNNTModel

    if isinstance(model, EncDecRNNTModel):  # includes hybrid models, whose transducer is more accurate than their CTC
        return TransducerDecoder(model)
    if isinstance(model, EncDecCTCModel):
        return CtcDecoder(model)
    if isinstance(model, EncDecMultiTaskModel):
        return CanaryDecoder(model, name)
    raise ConfigurationError(
        f"The model {name} is of class {type(model).__name__}, which does not output word timestamps. Set"
        " NEMO_ASR_MODEL to a CTC, RNNT, TDT or hybrid model, for example nvidia/parakeet-tdt-0.6b-v3."
    )


class CtcDecoder:
    """Greedy CTC decoding: the most probable token of each frame, without repetitions and blanks.

    Graves et al., "Connectionist temporal classification" (2006).
    """

    letter_duration = LETTER_DURATION_S
    languages: tuple[str, ...] = ()
    default_language: str | None = None

    def __init__(self, model: Any) -> None:
        self._model = model
        self.vocabulary = _vocabulary(model, model.decoder)
        self.frame_step = _frame_step(model)

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:  # noqa: ARG002
        log_probabilities, frames, _ = self._model.forward(input_signal=signal, input_signal_length=lengths)
        best = log_probabilities.max(dim=-1)  # (windows, frames)
        token_ids, confidences = best.indices.cpu().numpy(), best.values.float().exp().cpu().numpy()
        return [
            collapse_frames(token_ids[row, :count], confidences[row, :count], len(self.vocabulary), self.frame_step)
            for row, count in enumerate(frames.tolist())
        ]


def collapse_frames(
    token_ids: NDArray[np.int64], confidences: NDArray[np.float32], blank: int, frame_step: Seconds
) -> list[Token]:
    """Merge consecutive frames with the same token into one token, and remove blanks.

    Args:
        token_ids: The most probable token ID of each frame, int64 (frames,).
        confidences: The probability of that token, float32 (frames,).
        blank: The ID of the blank token.
        frame_step: The interval between two frames.

    Returns:
        Tokens from their first frame to their last, with the highest probability among their frames.
    """
    if len(token_ids) == 0:
        return []
    starts = np.flatnonzero(np.diff(token_ids, prepend=-1))
    ends = np.append(starts[1:], len(token_ids))
    peaks = np.maximum.reduceat(confidences, starts)
    return [
        Token(int(token_ids[start]), float(start * frame_step), float(end * frame_step), float(peak))
        for start, end, peak in zip(starts, ends, peaks, strict=True)
        if token_ids[start] != blank
    ]


class TransducerDecoder:
    """NeMo's batched greedy search, with CUDA graphs on a GPU; for RNNT, TDT and multi-blank models.

    Xu et al., "Label-looping: highly efficient decoding for transducers" (2024). The search returns the tokens and
    their start times. Durations and confidences are computed afterwards, because NeMo 3.0.0 returns wrong durations
    when it searches several windows at once without CUDA graphs: a window that waits for the others gets the duration
    of a later frame.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.vocabulary = _vocabulary(model, model.joint)
        self.frame_step = _frame_step(model)
        self._prompt_indices = _prompt_indices(model)
        self.languages = tuple(sorted(language for language in self._prompt_indices if language != "auto"))
        self.default_language = (
            None if not self._prompt_indices or "auto" in self._prompt_indices else self.languages[0]
        )
        model.change_decoding_strategy(_greedy_decoding_config(model.cfg.decoding), verbose=False)
        model.eval()  # the new decoding strategy added modules
        self._durations = torch.tensor(list(model.decoding.durations or ()), dtype=torch.long)
        self.letter_duration = LETTER_DURATION_S if len(self._durations) == 0 else 0.0

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:
        prompt = {}
        if self._prompt_indices:
            prompt_index = self._prompt_indices[language or "auto"]
            prompt["prompt_indices"] = torch.full((len(signal),), prompt_index, dtype=torch.long, device=signal.device)
        encoded, frames = self._model.forward(input_signal=signal, input_signal_length=lengths, **prompt)
        with torch.autocast(signal.device.type, enabled=False):  # small networks whose precision decides the tokens
            encoded = encoded.float()
            (hypotheses,) = self._model.decoding.decoding(encoder_output=encoded, encoded_lengths=frames)
            return [self._tokens(hypothesis, window) for hypothesis, window in zip(hypotheses, encoded, strict=True)]

    def _tokens(self, hypothesis: Any, encoded: torch.Tensor) -> list[Token]:
        """Return the tokens of one window, whose encoder output has the shape (values, frames)."""
        token_ids = torch.as_tensor(hypothesis.y_sequence, dtype=torch.long)
        frame_indices = torch.as_tensor(hypothesis.timestamp, dtype=torch.long)
        is_text = token_ids < len(self.vocabulary)
        token_ids, frame_indices = token_ids[is_text], frame_indices[is_text]
        if len(token_ids) == 0:
            return []
        joint, decoder = self._model.joint, self._model.decoder
        prediction, *_ = decoder.predict(token_ids[None, :-1].to(encoded.device), None, add_sos=True, batch_size=1)
        encoder_projection = joint.project_encoder(
            encoded.T[frame_indices.to(encoded.device)][:, None]
        )  # (tokens, 1, values)
        prediction_projection = joint.project_prednet(prediction[0, :, None])  # (tokens, 1, values)
        logits = joint.joint_after_projection(encoder_projection, prediction_projection)[
            :, 0, 0
        ].cpu()  # (tokens, pieces, blank and durations)
        count = len(self._durations)
        confidences = logits[:, : logits.shape[1] - count].softmax(dim=1).gather(1, token_ids[:, None])[:, 0]
        durations = self._durations[logits[:, -count:].argmax(dim=1)] if count else torch.ones_like(frame_indices)
        return [
            Token(token_id, start * self.frame_step, (start + frames) * self.frame_step, confidence)
            for token_id, start, frames, confidence in zip(
                token_ids.tolist(), frame_indices.tolist(), durations.tolist(), confidences.tolist(), strict=True
            )
        ]


def _greedy_decoding_config(config: Any) -> Any:
    """Return a copy of the model's decoding configuration with greedy search."""
    from omegaconf import OmegaConf, open_dict

    config = copy.deepcopy(config)
    overrides = {
        "strategy": "greedy_batch",
        "preserve_alignments": False,
        "compute_timestamps": False,
        "confidence_cfg": {"preserve_frame_confidence": False},
        "greedy": {
            "preserve_alignments": False,
            "preserve_frame_confidence": False,
            "loop_labels": True,
            "use_cuda_graph_decoder": True,
            "ngram_lm_model": None,
        },
    }
    with open_dict(config):
        return OmegaConf.merge(config, overrides)


def _vocabulary(model: Any, output: Any) -> Vocabulary:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return Vocabulary([str(label) for label in output.vocabulary])
    return Vocabulary(tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size))))


def _frame_step(model: Any) -> Seconds:
    return float(model.cfg.preprocessor.window_stride) * int(model.encoder.subsampling_factor)


def _prompt_indices(model: Any) -> dict[str, int]:
    """Return the prompt index of each language and of ``auto`` for a model with prompts; empty for other models."""
    dictionary = model.cfg.get("model_defaults", {}).get("prompt_dictionary") or {}
    prompts: dict[str, int] = {}
    for name, index in dictionary.items():
        language = str(name).replace("_", "-").partition("-")[0].lower()
        if str(name) == "auto" or len(language) == 2:
            prompts.setdefault(language, int(index))
    return prompts
