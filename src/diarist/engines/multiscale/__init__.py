"""Diarization by clustering speaker embeddings of several window lengths, for any networks."""
