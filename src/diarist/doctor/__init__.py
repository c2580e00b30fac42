"""Looks an installation over, and says of each thing whether it is well and what to do where it is not."""
