"""Names that SkyPilot knows our clusters and jobs by, derived so that no two objects or attempts share one."""

import hashlib

NAME_CHARACTERS = 20
HASH_CHARACTERS = 10
UID_CHARACTERS = 8


def cluster_name(name: str, uid: str) -> str:
    """Return the SkyPilot cluster name of the object with this name and uid: readable first, then unique.

    At most 33 characters, which is what is left on Kubernetes once SkyPilot has added the hash of its user, and begins
    with a letter (sky/skylet/constants.py:569, CLUSTER_NAME_VALID_REGEX).

    Args:
        name: `metadata.name`, which Kubernetes has checked to be a DNS subdomain.
        uid: `metadata.uid`; an object that is deleted and created again gets another cluster.
    """
    readable = name[:NAME_CHARACTERS].replace(".", "-").rstrip("-")
    if readable[:1].isdigit():
        readable = f"s-{readable}"
    return f"{readable}-{hashlib.sha256(uid.encode()).hexdigest()[:HASH_CHARACTERS]}"


def job_name(uid: str, attempt: int) -> str:
    """Return the name under which the job of this attempt stands in the cluster's queue."""
    return f"{uid[:UID_CHARACTERS]}-a{attempt}"
