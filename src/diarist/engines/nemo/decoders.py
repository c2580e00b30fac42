"""What a NeMo recogniser says to a batch of windows, piece by piece, for each kind of model.

The models' own ``transcribe()`` is not used: it writes its state into the model, rebuilds the decoder on each call,
centres short clips in a second of silence, and gives a CTC model's word the start of the piece before it.
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
    """A model with what it takes to read pieces from it."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What the numbers of its pieces mean."""
        ...

    @property
    def frame(self) -> Seconds:
        """From one of its frames to the next."""
        ...

    @property
    def letter(self) -> Seconds:
        """What a letter takes at least, where the model does not say when a piece ends; else 0."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that it can be told, ISO 639-1; empty where it is not told any."""
        ...

    @property
    def default_language(self) -> str | None:
        """What a model that has to be told a language is told where nobody knows it; None where none has to be."""
        ...

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:
        """The pieces of each window, in order, with times from its start.

        Args:
            signal: float32 (windows, samples), filled up at the end.
            lengths: samples of each window, int64 (windows,).
            language: of the words; None where it is not known.
        """
        ...


def decoder_for(model: Any, name: str) -> Decoder:
    """What reads pieces from ``model``, which it prepares for that.

    Raises:
        ConfigurationError: the model has no word times.
    """
    from nemo.collections.asr.models import EncDecCTCModel, EncDecMultiTaskModel, EncDecRNNTModel

    if isinstance(model, EncDecRNNTModel):  # hybrids too: their transducer is the better half
        return TransducerDecoder(model)
    if isinstance(model, EncDecCTCModel):
        return CtcDecoder(model)
    if isinstance(model, EncDecMultiTaskModel):
        return CanaryDecoder(model, name)
    raise ConfigurationError(
        f"The model {name} is a {type(model).__name__}, which gives no times of words. Set NEMO_ASR_MODEL to a CTC,"
        " RNNT, TDT or hybrid model, such as nvidia/parakeet-tdt-0.6b-v3."
    )


class CtcDecoder:
    """The most probable piece of each frame, repetitions and blanks taken out.

    Graves et al., "Connectionist temporal classification" (2006).
    """

    letter = LETTER_DURATION_S
    languages: tuple[str, ...] = ()
    default_language: str | None = None

    def __init__(self, model: Any) -> None:
        self._model = model
        self.vocabulary = _vocabulary(model, model.decoder)
        self.frame = _frame(model)

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:  # noqa: ARG002
        log_probabilities, frames, _ = self._model.forward(input_signal=signal, input_signal_length=lengths)
        best = log_probabilities.max(dim=-1)  # (windows, frames)
        pieces, sure = best.indices.cpu().numpy(), best.values.float().exp().cpu().numpy()
        return [
            fold(pieces[row, :count], sure[row, :count], len(self.vocabulary), self.frame)
            for row, count in enumerate(frames.tolist())
        ]


def fold(pieces: NDArray[np.int64], sure: NDArray[np.float32], blank: int, frame: Seconds) -> list[Token]:
    """Frames that say the same piece as one token, without the blanks.

    Args:
        pieces: the best one of each frame, (frames,).
        sure: its probability, (frames,).
        blank: the piece that stands for none.
        frame: from one frame to the next.

    Returns:
        Tokens from their first frame to their last, with the highest probability among their frames.
    """
    if len(pieces) == 0:
        return []
    starts = np.flatnonzero(np.diff(pieces, prepend=-1))
    ends = np.append(starts[1:], len(pieces))
    peaks = np.maximum.reduceat(sure, starts)
    return [
        Token(int(pieces[start]), float(start * frame), float(end * frame), float(peak))
        for start, end, peak in zip(starts, ends, peaks, strict=True)
        if pieces[start] != blank
    ]


class TransducerDecoder:
    """NeMo's greedy search in batches, in CUDA graphs on a GPU; for RNNT, TDT and multi-blank models.

    Xu et al., "Label-looping: highly efficient decoding for transducers" (2024). The search says what is heard and
    when; how long and how surely is looked up afterwards. For where NeMo 3.0.0 searches several windows at once without
    CUDA graphs, a window that waits for the others gets the duration of a later frame with its piece.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.vocabulary = _vocabulary(model, model.joint)
        self.frame = _frame(model)
        self._prompts = _prompts(model)
        self.languages = tuple(sorted(language for language in self._prompts if language != "auto"))
        self.default_language = None if not self._prompts or "auto" in self._prompts else self.languages[0]
        model.change_decoding_strategy(_greedy(model.cfg.decoding), verbose=False)
        model.eval()  # the change brought new parts
        self._durations = torch.tensor(list(model.decoding.durations or ()), dtype=torch.long)
        self.letter = LETTER_DURATION_S if len(self._durations) == 0 else 0.0

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:
        prompt = {}
        if self._prompts:
            number = self._prompts[language or "auto"]
            prompt["prompt_indices"] = torch.full((len(signal),), number, dtype=torch.long, device=signal.device)
        encoded, frames = self._model.forward(input_signal=signal, input_signal_length=lengths, **prompt)
        with torch.autocast(signal.device.type, enabled=False):  # small networks, whose sums decide what is said
            encoded = encoded.float()
            (hypotheses,) = self._model.decoding.decoding(encoder_output=encoded, encoded_lengths=frames)
            return [self._tokens(hypothesis, window) for hypothesis, window in zip(hypotheses, encoded, strict=True)]

    def _tokens(self, hypothesis: Any, encoded: torch.Tensor) -> list[Token]:
        """The tokens of one window, whose encoding is (values, frames)."""
        pieces = torch.as_tensor(hypothesis.y_sequence, dtype=torch.long)
        at = torch.as_tensor(hypothesis.timestamp, dtype=torch.long)
        said = pieces < len(self.vocabulary)
        pieces, at = pieces[said], at[said]
        if len(pieces) == 0:
            return []
        joint, decoder = self._model.joint, self._model.decoder
        before, *_ = decoder.predict(pieces[None, :-1].to(encoded.device), None, add_sos=True, batch_size=1)
        heard = joint.project_encoder(encoded.T[at.to(encoded.device)][:, None])  # (tokens, 1, values)
        knowing = joint.project_prednet(before[0, :, None])  # (tokens, 1, values)
        logits = joint.joint_after_projection(heard, knowing)[:, 0, 0].cpu()  # (tokens, pieces, blank and durations)
        count = len(self._durations)
        sure = logits[:, : logits.shape[1] - count].softmax(dim=1).gather(1, pieces[:, None])[:, 0]
        lasting = self._durations[logits[:, -count:].argmax(dim=1)] if count else torch.ones_like(at)
        return [
            Token(piece, start * self.frame, (start + frames) * self.frame, confidence)
            for piece, start, frames, confidence in zip(
                pieces.tolist(), at.tolist(), lasting.tolist(), sure.tolist(), strict=True
            )
        ]


def _greedy(config: Any) -> Any:
    """The model's own decoding configuration, made greedy."""
    from omegaconf import OmegaConf, open_dict

    config = copy.deepcopy(config)
    asked = {
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
        return OmegaConf.merge(config, asked)


def _vocabulary(model: Any, output: Any) -> Vocabulary:
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return Vocabulary([str(label) for label in output.vocabulary])
    return Vocabulary(tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size))))


def _frame(model: Any) -> Seconds:
    return float(model.cfg.preprocessor.window_stride) * int(model.encoder.subsampling_factor)


def _prompts(model: Any) -> dict[str, int]:
    """The number of each language that a model with prompts has to be told, and that of ``auto``; empty elsewhere."""
    named = model.cfg.get("model_defaults", {}).get("prompt_dictionary") or {}
    prompts: dict[str, int] = {}
    for name, number in named.items():
        language = str(name).replace("_", "-").partition("-")[0].lower()
        if str(name) == "auto" or len(language) == 2:
            prompts.setdefault(language, int(number))
    return prompts
