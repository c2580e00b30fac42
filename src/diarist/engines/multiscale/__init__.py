"""Diarization by clustering speaker embeddings at several window lengths, with any networks."""
