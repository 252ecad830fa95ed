"""SkyPilot's errors, as recorded from real launches that failed, and what users are told."""

from __future__ import annotations

import pytest
from skyoperator.failures import MESSAGE_LIMIT, bounded, of_job, of_launch
from skyoperator.sky.types import JobStatus, RequestError

NO_GPU = "Kubernetes cluster does not contain any instances satisfying the request: 1x Kubernetes(cpus=1, mem=1, {'H100': 8})."
NO_IMAGE = "Failed to acquire resources. Reason: ErrImagePull: failed to pull and unpack image: not found"


@pytest.mark.parametrize(
    ("type_", "message", "reason"),
    [
        ("ResourcesUnavailableError", NO_GPU, "NoCapacity"),
        ("ResourcesUnavailableError", NO_IMAGE, "ImagePullFailed"),
        ("ResourcesUnavailableError", "Reason: InvalidImageName: couldn't parse image name", "ImagePullFailed"),
        ("ResourcesUnavailableError", 'pods "x" is forbidden: exceeded quota: compute', "QuotaExceeded"),
        ("ResourcesUnavailableError", 'pods is forbidden: User "sa" cannot create', "AuthFailed"),
        ("KubeAPIUnreachableError", "timed out", "NoCapacity"),
        ("NoCloudAccessError", "no cloud is enabled", "AuthFailed"),
        ("ValueError", "num_nodes must be positive", "InvalidTask"),
        ("RequestCancelled", "cancelled", "JobCancelled"),
        ("CommandError", "Failed to run setup commands on an instance", "SkyPilotError"),
        ("NeverHeardOf", "what", "SkyPilotError"),
    ],
)
def test_launches(type_: str, message: str, reason: str) -> None:
    failure = of_launch(RequestError(type_, message))
    assert failure.reason == reason
    assert message in failure.message


def test_jobs_speak_for_themselves() -> None:
    assert of_job(1, JobStatus.FAILED, "Job 1 failed with return code list: [3]").message == "Job 1 failed with return code list: [3]"
    assert of_job(1, JobStatus.FAILED, "").message == "Job 1 ended as FAILED."


def test_a_long_message_keeps_its_end() -> None:
    message = bounded("x" * 10_000 + "\n\n  the cause  \n")
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("\n  the cause")
