"""The lines of a cue: as few as possible, of similar length, and with breaks at good positions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from diarist.formats.cue_words import CueWord, join
from diarist.formats.line_breaking import Break, line_break

_SENTENCE_ENDS = frozenset(".?!…。？！۔।")
_CLAUSE_ENDS = frozenset(",;:、，；：،–—")
_CLOSING_MARKS = "\"'”’»)]}」』）】》"

# The costs of a break by its position. They were tuned on real transcripts.
_AFTER_SENTENCE, _AFTER_CLAUSE, _BETWEEN_WORDS, _WITHIN_WORD = 0.0, 1.0, 3.0, 20.0
_ORPHAN = 1.0
"""The additional cost of a break that separates the first word of a sentence or clause from the rest of it."""


def break_costs(words: Sequence[CueWord]) -> list[float]:
    """Return the cost of a break before each word, and of one after the last word. Both edges cost nothing."""
    costs = [0.0, *(_break_cost(before, after) for before, after in pairwise(words)), 0.0][: len(words) + 1]
    orphans = [
        position
        for position in range(2, len(words))
        if costs[position] == _BETWEEN_WORDS and costs[position - 1] <= _AFTER_CLAUSE
    ]
    for position in orphans:
        costs[position] += _ORPHAN
    return costs


def _break_cost(before: CueWord, after: CueWord) -> float:
    if line_break(before.text, after.text, spaced=after.spaced) is not Break.ALLOWED:
        return _WITHIN_WORD
    last = before.text.rstrip(_CLOSING_MARKS)[-1:]
    if last in _SENTENCE_ENDS:
        return _AFTER_SENTENCE
    if last in _CLAUSE_ENDS:
        return _AFTER_CLAUSE
    return _BETWEEN_WORDS


def count_lines(words: Sequence[CueWord], max_columns: int) -> int:
    """Return the minimum number of lines that words need. A line holds at least one word."""
    lines, used = 1, words[0].columns
    for word in words[1:]:
        used += word.spaced + word.columns
        if used > max_columns:
            lines, used = lines + 1, word.columns
    return lines


def layout_lines(words: Sequence[CueWord], max_columns: int, max_lines: int) -> tuple[str, ...]:
    """Return the lines of a cue. Only what does not fit into ``max_lines`` makes a line longer than ``max_columns``."""
    lines = min(count_lines(words, max_columns), max_lines)
    # In columns from the start of the cue, if all words were on one line.
    widths = (words[0].columns, *(word.spaced + word.columns for word in words[1:]))
    ends = list(accumulate(widths, initial=0))
    mean = ends[-1] / lines
    costs = break_costs(words)

    def line_cost(first: int, end: int) -> float:
        width = ends[end] - ends[first] - words[first].spaced if first else ends[end]
        return 100 * max(0, width - max_columns) + abs(width - mean) + 4 * costs[end]

    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for rest in reversed(range(lines)):
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for first, (cost, breaks) in best.items():
            for end in range(first + 1, len(words) - rest + 1) if rest else (len(words),):
                total = cost + line_cost(first, end)
                if end not in longer or total < longer[end][0]:
                    longer[end] = (total, (*breaks, first))
        best = longer
    edges = (*best[len(words)][1], len(words))
    return tuple(join(words[first:end]) for first, end in pairwise(edges))
