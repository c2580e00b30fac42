"""Checks of an installation, with advice for every problem that they find."""
