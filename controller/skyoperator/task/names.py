"""Names that SkyPilot knows our clusters and jobs by, derived so that no two objects or attempts share one."""

import hashlib

NAME_CHARACTERS = 11
HASH_CHARACTERS = 10
UID_CHARACTERS = 8


def cluster_name(name: str, uid: str) -> str:
    """Return the SkyPilot cluster name of the object with this name and uid: readable first, then unique.

    At most 22 characters, and begins with a letter (sky/skylet/constants.py:569, CLUSTER_NAME_VALID_REGEX). SkyPilot adds the id
    of its user, 8 characters or 19 of a service account, and cuts what is then longer than 42 on Kubernetes, or 35 on GCP, to two
    characters of hash (sky/utils/common_utils.py:299): clusters with a longer name would sooner or later share their pods.

    Args:
        name: `metadata.name`, which Kubernetes has checked to be a DNS subdomain.
        uid: `metadata.uid`; an object that is deleted and created again gets another cluster.
    """
    lettered = f"s-{name}" if name[:1].isdigit() else name
    readable = lettered[:NAME_CHARACTERS].replace(".", "-").rstrip("-")
    return f"{readable}-{hashlib.sha256(uid.encode()).hexdigest()[:HASH_CHARACTERS]}"


def job_name(uid: str, attempt: int) -> str:
    """Return the name under which the job of this attempt stands in the cluster's queue."""
    return f"{uid[:UID_CHARACTERS]}-a{attempt}"
