"""Diarist: a recording in, who said what, when, out."""

from importlib.metadata import version

__version__ = version("diarist")
