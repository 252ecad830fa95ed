"""The one place where the wall clock is read; tests put their own in its place."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)
