"""Answers of a real API server (SkyPilot 0.14.1, API version 62), word for word, as the stand-in gives them.

errors.json holds exceptions and how each was provoked; the shapes of rows are those of sky/server/requests/serializers.
tests/contract asks a real server for the same.
"""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

from tests.standin.script import Error
from tests.standin.world import Cluster, Job, Request

API_VERSION = "62"
VERSION = "0.14.1"
USER_ID, USER_NAME = "3cf75ab7", "skyoperator"
HANDLE = base64.b64encode(pickle.dumps(None)).decode()
"""A pickled None: nobody but SkyPilot's own client unpickles handles."""

_ERRORS = json.loads((Path(__file__).parent / "errors.json").read_text(encoding="utf-8"))["errors"]


def error(name: str, **fields: str) -> Error:
    """Return a recorded exception; `fields` fill its {placeholders}. Raises KeyError for a name that is not recorded."""
    found = _ERRORS[name]
    message = found["message"]
    for field, value in fields.items():
        message = message.replace("{" + field + "}", value)
    return Error(found["type"], message)


def no_cluster(name: str) -> Error:
    """Return what /queue and /logs fail with when there is no row."""
    return error("no-cluster", cluster=name)


def no_cluster_to_down(name: str) -> Error:
    """Return what /down fails with when there is no row."""
    return error("no-cluster-to-down", cluster=name)


def cluster_not_up(name: str, status: str, operation: str) -> Error:
    """Return what /queue and /logs fail with while the cluster is not up."""
    return error("cluster-not-up", cluster=name, status=status, Operation=operation.capitalize())


def never_set_up(name: str) -> Error:
    """Return what /queue and /logs fail with while the row is UP, but no launch ever got as far as to set the node up."""
    return error("never-set-up", cluster=name)


def no_endpoints(name: str, status: str | None) -> Error:
    """Return what /endpoints fails with when there is no row, or one that is not up."""
    return error("no-cluster-with-endpoints" if status is None else "endpoints-of-a-cluster-not-up", cluster=name)


def cluster_row(cluster: Cluster) -> dict[str, Any]:
    """Return a row of /status with summary_response and without handle."""
    init = cluster.status == "INIT"
    row = {
        "name": cluster.name,
        "launched_at": cluster.launched_at,
        "handle": HANDLE,
        "last_use": "",
        "status": cluster.status,
        "autostop": cluster.autostop,
        "to_down": cluster.autostop >= 0,
        "cluster_hash": cluster.hash,
        "cluster_ever_up": not init,
        "status_updated_at": 0,
        "user_hash": USER_ID,
        "user_name": USER_NAME,
        "workspace": "default",
        "is_managed": False,
        "init_kind": ("unhealthy" if cluster.unhealthy else "launching") if init else None,
        "init_status_reason": cluster.reason if init else None,
        "resources_str": f"{cluster.nodes}x(cpus=1, mem=1, ...)",
        "resources_str_full": f"{cluster.nodes}x(cpus=1, mem=1, disk=256)",
        "nodes": cluster.nodes,
        "cloud": "Kubernetes",
        "region": "in-cluster",
        "cpus": "1",
        "memory": "1",
        "labels": cluster.labels,
        "node_names": "node1",
        "priority": 0,
        "storage_mounts_metadata": HANDLE,
    }
    return {key: value for key, value in row.items() if value is not None}


def job_row(job: Job) -> dict[str, Any]:
    """Return a row of /queue."""
    return {
        "job_id": job.id,
        "job_name": job.name,
        "username": USER_NAME,
        "user_hash": USER_ID,
        "submitted_at": job.submitted_at,
        "start_at": job.start_at,
        "end_at": job.end_at,
        "resources": "1x[CPU:1+]",
        "status": job.status,
        "log_path": f"~/sky_logs/{job.id}-{job.name}",
        "metadata": {},
        "links": {},
    }


def user_row(user_id: str, name: str, created_at: int, role: str, user_type: str) -> dict[str, Any]:
    """Return a row of GET /users."""
    return {"id": user_id, "name": name, "created_at": created_at, "role": role, "user_type": user_type}


def imported(total: int, taken: list[str]) -> dict[str, Any]:
    """Return the answer of POST /users/import."""
    return {
        "success_count": total - len(taken),
        "error_count": len(taken),
        "total_processed": total,
        "parse_errors": [],
        "creation_errors": [f"{name}: User already exists" for name in taken],
    }


def log(jobs: list[Job], job_id: int, tail: int) -> tuple[int, str]:
    """Return a job's exit code for SkyPilot's CLI and the last lines of its log, as /logs streams them."""
    job = next((job for job in jobs if job.id == job_id), None)
    if job is None:
        return 102, f"Job {job_id} not found (see `sky queue`).\n"
    prefix = f"\x1b[36m({job.name}, pid=709)\x1b[0m"
    ended = f"\x1b[0m\x1b[32m✓ Job finished (status: {job.status}).\x1b[0m\x1b[0m\n" if job.end_at else ""
    said = [line if line.startswith("ERROR:") else f"{prefix} {line}" for line in job.log.splitlines(keepends=True)]
    lines = [*_JOB_BEGINS, *said]
    return (0 if job.status == "SUCCEEDED" else 100), "".join(lines[-tail:] if tail else lines) + ended


_JOB_BEGINS = (
    "\x1b[2m├── \x1b[0m\x1b[2mWaiting for task resources on 1 node.\x1b[0m\n",
    "\x1b[2m└── \x1b[0mJob started. Streaming logs... \x1b[2m(Ctrl-C to exit log streaming)\x1b[0m\n",
)


def request_listed(request: Request, fields: set[str], *, with_body: bool) -> dict[str, Any]:
    """Return a row of /api/status: columns not asked for are blank, PENDING or 0 (requests.py:514)."""
    full = {
        "request_id": request.id,
        "name": f"sky.{request.name}",
        "status": request.status,
        "created_at": request.created_at,
        "cluster_name": request.cluster_name,
        "status_msg": request.status_msg,
        "user_id": USER_ID,
        "finished_at": request.finished_at,
        "schedule_type": "long" if request.name == "launch" else "short",
    }
    blank = {"request_id": "", "name": "", "status": "PENDING", "created_at": 0.0, "user_id": "", "schedule_type": "short"}
    chosen = {key: value if not fields or key in fields else blank.get(key) for key, value in full.items()}
    return {
        **chosen,
        "entrypoint": request.name if with_body or not fields else "",
        "request_body": json.dumps(request.body) if with_body or not fields else "null",
        "return_value": "null",
        "error": "null",
        "pid": None,
        "user_name": USER_NAME if not fields or "user_id" in fields else None,
        "should_retry": False,
        "file_mounts_blob_id": None,
    }


def request_result(request: Request) -> dict[str, Any]:
    """Return a finished request as /api/get has it, inside `detail` of a 500 if it failed."""
    failed = request.error
    return {
        **request_listed(request, set(), with_body=True),
        "entrypoint": HANDLE,
        "request_body": HANDLE,
        "pid": 1,
        "return_value": json.dumps(request.value),
        "error": json.dumps({"object": HANDLE, "type": failed.type, "message": failed.message} if failed else None),
        "user_name": None,
    }
