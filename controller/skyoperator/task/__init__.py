"""The SkyPilot task inside a SkyCluster: may it be launched, what is it called, what exactly is sent.

Pure: plain data in, plain data or text out. Imports nothing of the controller but itself; `decide` and `reconcile` import it.
"""

from skyoperator.task.allowed import Policy
from skyoperator.task.digests import cluster_digest, digest
from skyoperator.task.document import parse
from skyoperator.task.installer import PolicyError, read_policy
from skyoperator.task.names import cluster_name, job_name
from skyoperator.task.policy import check, check_values
from skyoperator.task.problems import JSON, TaskRejected
from skyoperator.task.render import has_ports, has_run, render
from skyoperator.task.secret_envs import secret_path

__all__ = [
    "JSON",
    "Policy",
    "PolicyError",
    "TaskRejected",
    "check",
    "check_values",
    "cluster_digest",
    "cluster_name",
    "digest",
    "has_ports",
    "has_run",
    "job_name",
    "parse",
    "read_policy",
    "render",
    "secret_path",
]
