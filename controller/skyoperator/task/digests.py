"""Digests that tell two tasks apart, and that tell whether a live cluster can take the change from one to the other."""

import hashlib
import json
from collections.abc import Mapping

from skyoperator.task.git import full_url
from skyoperator.task.policy import normal
from skyoperator.task.problems import JSON
from skyoperator.task.variables import filled

DIGEST_CHARACTERS = 16


def digest(task: Mapping[str, JSON]) -> str:
    """Return 16 hex digits that are the same for tasks which mean the same, whatever the order of their keys.

    Raises:
        TypeError, ValueError: The task is no JSON; one that passed `check` always is.
    """
    return _of(normal(task))


def cluster_digest(task: Mapping[str, JSON]) -> str:
    """Return 16 hex digits that stay the same as long as another launch on the live cluster brings it up to date.

    A launch on a live cluster copies workdir and file_mounts and runs setup and run, with the envs, again. Of the rest it takes nothing:
    it ignores cpus, memory, disk_size, labels, fewer nodes, new volumes and the pod's settings, and refuses other accelerators, images
    and places, more nodes, and mounts where there were none (sky/backends/cloud_vm_ray_backend.py:3255-3377 and 6380-6615,
    sky/resources.py:1990-2110). It opens ports but closes none. Its git_clone.sh fails in the clone of another repository.

    Raises:
        TypeError, ValueError: The task is no JSON; one that passed `check` always is.
    """
    whole = filled(normal(task))
    return _of(
        {
            "resources": whole.get("resources") or {},
            "num_nodes": whole.get("num_nodes", 1),
            "volumes": whole.get("volumes") or {},
            "config": whole.get("config") or {},
            "repository": _repository(whole.get("workdir")),
            "mounts": _has_mounts(whole.get("file_mounts")),
        }
    )


def _repository(workdir: JSON) -> str | None:
    return full_url(str(workdir.get("url"))) if isinstance(workdir, Mapping) else None


def _has_mounts(file_mounts: JSON) -> bool:
    """Return whether a bucket is mounted rather than copied, which takes a device that a pod has from its start (sky/task.py:1413)."""
    each = file_mounts.values() if isinstance(file_mounts, Mapping) else ()
    return any(isinstance(mount, Mapping) and str(mount.get("mode", "mount")).lower() != "copy" for mount in each)


def _of(value: JSON) -> str:
    canonical = json.dumps(_numbers_alike(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _numbers_alike(value: JSON) -> JSON:
    """Return the value with 2.0 written as 2, as the API server of Kubernetes hands it back."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _numbers_alike(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers_alike(inner) for inner in value]
    return value
