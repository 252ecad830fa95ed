"""Whether a failure is worth another launch, and when."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final

from skyoperator.api.v1alpha1 import Reason, SkyCluster

FIRST_PAUSE_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 600.0
"""As batch/v1's Job has them (pkg/controller/job/job_controller.go, DefaultJobPodFailureBackOff, MaxJobPodFailureBackOff)."""

JITTER: Final = 0.2


def next_retry_time(this: SkyCluster, reason: Reason, failures: int, now: datetime) -> datetime | None:
    """Return when to launch again after this many failures, the last for this reason; None if that was the last launch."""
    if not is_retried(this, reason) or failures > this.spec.backoff_limit:
        return None
    return now + timedelta(seconds=pause_seconds(this.uid, failures))


def is_retried(this: SkyCluster, reason: Reason) -> bool:
    """Return whether the object wants another launch after such a failure, and may have one."""
    return reason.value in {retried.value for retried in this.spec.retry_on} and this.spec.backoff_limit > 0


def pause_seconds(uid: str, failures: int) -> float:
    """Return the pause after so many failures: it doubles, and differs from object to object so that a crowd does not come back at once.

    The same failure always gives the same pause: a pass that is repeated after a crash decides the same.
    """
    chance = int.from_bytes(hashlib.sha256(f"{uid}/{failures}".encode()).digest()[:4], "big") / 2**32
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_SECONDS)
    return longest * (1 - JITTER + 2 * JITTER * chance)
