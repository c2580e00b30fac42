"""Small SentencePiece tokenizers, trained on random words: for NeMo models with random weights."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ALPHABET = "etaoinshrdlcumwfgypbvkjxqz"
"""The letters of the random words, the most frequent first."""


def tokenizer(folder: Path, pieces: int) -> Path:
    """Train a SentencePiece tokenizer with ``pieces`` tokens on random words, and return ``folder`` with its files."""
    rng = random.Random(0)
    weights = [2.0 ** -(place / 6) for place in range(len(ALPHABET))]
    count = max(2_000, pieces * 8)
    words = ["".join(rng.choices(ALPHABET, weights, k=rng.randint(2, 9))) for _ in range(count)]
    return _train(folder, [ALPHABET, *(" ".join(words[at : at + 8]) for at in range(0, count, 8))], pieces)


def _train(folder: Path, lines: Iterable[str], pieces: int, **options: Any) -> Path:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=pieces, model_type="unigram",
        bos_id=-1, eos_id=-1, unk_id=0, minloglevel=2, hard_vocab_limit=False, num_threads=1, **options,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    names = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    (folder / "vocab.txt").write_text("\n".join(name.replace("▁", "##") for name in names), encoding="utf-8")
    (folder / "tokenizer.vocab").write_text("\n".join(f"{name}\t0" for name in names), encoding="utf-8")
    return folder


def canary_special_tokens(folder: Path) -> Path:
    """Train a tokenizer of the special tokens of Canary: those of its prompts and its timestamps."""
    switches = [f"<|{no}{what}|>" for what in ("pnc", "itn", "timestamp", "diarize") for no in ("", "no")]
    marks = ("nospeech", "endoftext", "startoftranscript", "startofcontext", "emo:undefined", "en", "de")
    symbols = ["<pad>", *(f"<|{mark}|>" for mark in marks), *switches, *(f"<|{frame}|>" for frame in range(400))]
    return _train(folder, ["."], len(symbols) + 3, user_defined_symbols=symbols)
