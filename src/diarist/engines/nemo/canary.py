"""Decoding of Canary models that output the times of each word: canary-1b-flash and canary-180m-flash."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from diarist.engines.word_timestamps import Token, Vocabulary
from diarist.errors import ConfigurationError
from diarist.types import Seconds

_TIME = re.compile(r"<\|(\d+)\|>")
_LANGUAGE = re.compile(r"<\|([a-z]{2})\|>")

MAX_EXTRA_TOKENS = 200
"""The maximum number of tokens beyond the number of frames: 5.5 words per second in a window of 30 s. A model that
does not find the end of the text generates tokens until it reaches this limit."""


class CanaryDecoder:
    """Greedy autoregressive decoding with a prompt that requests timestamps and a transcript in the spoken language.

    Żelasko et al., "Training and inference efficiency of encoder-decoder speech models" (2025).
    """

    letter_duration: Seconds = 0.0

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        tokenizer = model.tokenizer
        special = set(getattr(tokenizer, "special_tokens", ()))
        if model.prompt_format != "canary2" or not {"<|timestamp|>", "<|0|>"} <= special:
            raise _no_timestamps_error(name)
        if model.timestamps_asr_model is not None:  # canary-1b-v2 gets times from a second model and outputs none
            raise _no_timestamps_error(name)
        token_texts = tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size)))
        self.vocabulary = Vocabulary(token_texts)
        self.frame_step: Seconds = float(model.cfg.preprocessor.window_stride) * int(model.encoder.subsampling_factor)
        self._timestamps = {
            token_id: int(match[1]) * self.frame_step
            for token_id, text in enumerate(token_texts)
            if (match := _TIME.fullmatch(text))
        }
        supported = {match[1] for text in special if (match := _LANGUAGE.fullmatch(text))}
        self.languages = tuple(sorted(supported & set(tokenizer.langs) or supported))
        self.default_language: str | None = "en" if "en" in supported else self.languages[0]
        model.change_decoding_strategy(_greedy_decoding_config(model.cfg.decoding))
        model.eval()

    def decode(self, signal: torch.Tensor, lengths: torch.Tensor, language: str | None) -> list[list[Token]]:
        model = self._model
        prompt = self._prompt(language or self.default_language or "en").to(signal.device)
        _, _, states, mask = model.forward(input_signal=signal, input_signal_length=lengths)
        with torch.autocast(signal.device.type, enabled=False):
            (hypotheses,) = model.decoding.decoding(
                encoder_hidden_states=states.float(),
                encoder_input_mask=mask.float(),
                decoder_input_ids=prompt.repeat(len(signal), 1),
            )
        model.eval()  # NeMo leaves the decoder in training mode, with dropout
        return [self._tokens(hypothesis) for hypothesis in hypotheses]

    def _prompt(self, language: str) -> torch.Tensor:
        """Return the token IDs of a prompt that requests words with timestamps, int64 (1, tokens)."""
        slots = {
            "decodercontext": "", "emotion": "<|emo:undefined|>", "source_lang": language, "target_lang": language,
            "pnc": "yes", "itn": "no", "timestamp": "yes", "diarize": "no",
        }  # fmt: skip
        return self._model.prompt.encode_dialog(turns=[{"role": "user", "slots": slots}])["context_ids"][None]

    def _tokens(self, hypothesis: Any) -> list[Token]:
        token_ids = [int(token_id) for token_id in hypothesis.y_sequence]
        confidences = [float(value) for value in hypothesis.token_confidence]
        return assign_timestamps(token_ids, confidences, self._timestamps, self.frame_step)


def assign_timestamps(
    token_ids: Sequence[int], confidences: Sequence[float], timestamps: dict[int, Seconds], frame_step: Seconds
) -> list[Token]:
    """Return the text tokens with the times that the model output before and after them.

    Args:
        token_ids: The IDs of the text and timestamp tokens, in order.
        confidences: The probability of each token.
        timestamps: The time of each timestamp token, by ID.
        frame_step: The duration of a token that no timestamp follows.

    Returns:
        The text tokens. Their times are nondecreasing.
    """
    tokens: list[Token] = []
    pending: list[Token] = []  # tokens whose end is not known yet
    latest_time = 0.0
    for token_id, confidence in zip(token_ids, confidences, strict=True):
        if token_id not in timestamps:
            pending.append(Token(token_id, latest_time, latest_time + frame_step, confidence))
            continue
        latest_time = max(latest_time, timestamps[token_id])
        tokens += [replace(token, end=max(latest_time, token.end)) for token in pending]
        pending = []
    return tokens + pending


def _no_timestamps_error(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"The model {name} does not output word timestamps. Set NEMO_ASR_MODEL to nvidia/canary-1b-flash, or to a CTC,"
        " RNNT, TDT or hybrid model, for example nvidia/parakeet-tdt-0.6b-v3."
    )


def _greedy_decoding_config(config: Any) -> Any:
    from omegaconf import OmegaConf, open_dict

    config = copy.deepcopy(config)
    overrides = {
        "strategy": "greedy",
        "return_xattn_scores": False,
        "greedy": {"temperature": None, "n_samples": 1, "max_generation_delta": MAX_EXTRA_TOKENS},
        "confidence_cfg": {"preserve_token_confidence": True, "method_cfg": {"name": "max_prob", "alpha": 1.0}},
    }
    with open_dict(config):
        return OmegaConf.merge(config, overrides)
