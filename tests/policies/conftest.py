"""Hypothesis without deadlines: the machine may be busy, and speed is not what is tested here."""

from hypothesis import settings

settings.register_profile("policies", deadline=None)
settings.load_profile("policies")
