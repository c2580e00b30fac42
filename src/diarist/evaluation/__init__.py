"""Evaluation of transcripts: reading references, scoring hypotheses against them, and reporting the scores.

Scoring needs the ``bench`` extra, which is imported only when something is scored.
"""
