"""Hypothesis without a stop-watch: how long an example takes is the machine's business, and a slow one proves nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
