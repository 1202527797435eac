"""Pointsman: a traffic router for model servers."""

__version__ = "0.1.0"
