"""Recognizers with random weights whose output is as varied as that of trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

RATE = 16_000

BLANK = {"ctc": 0.65, "rnnt": 0.65, "tdt": 0.3}
"""The share of steps with a blank, so that there are about three tokens per second, as in speech. A TDT model skips
most frames without speech."""

OPENINGS = 0.45
"""The share of tokens that start a word."""

CONTRAST = 3.0
"""The standard deviation of a token's logits between frames, in nats: the certainty of frames varies."""


def talkative(model: Any) -> Any:
    """Return the recognizer, with output layers whose output is varied.

    A model with random weights repeats one token. Here all tokens are made about equally likely over a few seconds of
    babble, the differences between frames are made large, and the share ``BLANK`` of the frames gives a blank.
    """
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(1)
        sound = babble()
        features, length = model.preprocessor(input_signal=sound, length=torch.tensor(sound.shape[1:]))
        encoded, _ = model.encoder(audio_signal=features, length=length)
        head = getattr(model, "ctc_decoder", None) or model.decoder
        if hasattr(head, "decoder_layers"):
            layer = head.decoder_layers[0]
            _level(layer, layer(encoded)[0].T, BLANK["ctc"], _pieces(model))
        if hasattr(model, "joint"):
            _level_joint(model, encoded)
    return model


def babble() -> Any:
    """Return eight seconds of distinct syllables and pauses, (1, samples)."""
    syllables = []
    for _ in range(60):
        length = int(RATE * (0.06 + 0.15 * torch.rand(1)))
        time = torch.arange(length) / RATE
        pitch, formant, width = 80 + 170 * torch.rand(1), 300 + 3000 * torch.rand(1), 200 + 800 * torch.rand(1)
        voiced, loud = torch.rand(1) ** 2, torch.rand(1) * (torch.rand(1) > 0.3)
        tones = [float(torch.exp(-(((n * pitch - formant) / width) ** 2))) * torch.sin(2 * torch.pi * n * pitch * time)
                 for n in range(1, 40)]  # fmt: skip
        hiss = torch.randn(length)
        syllables.append(loud * ((1 - voiced) * sum(tones) / 5 + voiced * hiss / 5) + hiss / 1_000)
    return torch.cat(syllables)[None]


def _level_joint(model: Any, encoded: Any) -> None:
    """Weight the encoder above the prediction network, which otherwise makes the model repeat itself."""
    joint, extra = model.joint, model.joint.num_extra_outputs
    blank = joint.num_classes_with_blank - extra - 1
    said = torch.randint(0, blank, (1, 40))
    predicted, *_ = model.decoder.predict(said, None, add_sos=True, batch_size=1)
    _standardize(joint.enc, joint.enc(encoded.transpose(1, 2))[0], 1.5)
    _standardize(joint.pred, joint.pred(predicted)[0], 0.1)
    frames, words = joint.enc(encoded.transpose(1, 2)), joint.pred(predicted)
    hidden = joint.joint_net[:-1](frames.unsqueeze(2) + words.unsqueeze(1)).flatten(0, 2)  # (frames x words, values)
    layer = joint.joint_net[-1]
    _level(layer, layer(hidden), BLANK["tdt" if extra else "rnnt"], _pieces(model))
    if extra:
        layer.bias[blank + 1] -= 4 * CONTRAST  # a duration of 0 says ten pieces in one frame


def _pieces(model: Any) -> list[str]:
    return list(model.tokenizer.vocab if hasattr(model, "tokenizer") else model.decoder.vocabulary)


def _level(layer: Any, logits: Any, blank_share: float, pieces: Sequence[str]) -> None:
    """Let the layer that gave ``logits`` (frames, tokens, then blank, then durations) output all tokens."""
    level = _standardize(layer, logits, CONTRAST)
    blank = len(pieces)
    never = torch.tensor([10 * CONTRAST * (piece == "<unk>") for piece in pieces])
    level[:, :blank] -= never
    layer.bias[:blank] -= never
    openings = torch.tensor([piece.startswith(("▁", " ")) for piece in pieces])
    inner, opening = (level[:, :blank][:, chosen].max(dim=1).values for chosen in (~openings, openings))
    more = torch.quantile(inner - opening, OPENINGS)
    layer.bias[:blank][openings] += more
    wins = torch.maximum(inner, opening + more) - level[:, blank]  # by how much the best piece beats blank
    layer.bias[blank] += torch.quantile(wins, blank_share)


def _standardize(layer: Any, outputs: Any, deviation: float) -> Any:
    """Change the layer that gave ``outputs`` (frames, values) so that they have mean 0 and this standard deviation."""
    mean, scale = outputs.mean(dim=0), deviation / (outputs.std(dim=0) + 1e-6)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.sub_(mean).mul_(scale)
    return (outputs - mean) * scale
