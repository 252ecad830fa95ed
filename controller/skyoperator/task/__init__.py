"""The SkyPilot task inside a SkyCluster: may it be launched, what is it called, what exactly is sent.

Pure: plain data in, plain data or text out. Imports nothing of the controller but itself; `decide` and `reconcile` import it.
"""

from skyoperator.task.document import parse
from skyoperator.task.mounts import Policy
from skyoperator.task.names import cluster_name, job_name
from skyoperator.task.policy import check
from skyoperator.task.problems import JSON, TaskRejected
from skyoperator.task.render import digest, has_run, render

__all__ = ["JSON", "Policy", "TaskRejected", "check", "cluster_name", "digest", "has_run", "job_name", "parse", "render"]
