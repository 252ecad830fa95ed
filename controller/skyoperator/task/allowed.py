"""What the installer allows: a value that goes into every judgement of a task. `installer` makes it from the chart's values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installer allows beyond a task that touches nothing of the API server's own. By default: nothing.

    Attributes:
        allowed_buckets: URIs such as `s3://datasets` or `gs://models/public`; each allows itself and what lies below.
        allowed_volumes: Names of SkyPilot volumes.
        allowed_infra: Such as `k8s`, `k8s/my-context` or `aws/us-east-1`; each allows itself and what lies below. Empty allows every infra;
            otherwise a task has to name its own.
        allow_task_keys: Keys of the task that are passed on as they are, though they are refused by default; of `policy.PASSED_ON_REQUEST`.
        default_autostop_minutes: For a cluster without `run` whose object sets no autostop. `check` and `render` don't read it.
        log_wait_seconds: How long a cluster that is to go waits for the log process to have its job's log; 0 if no logs are kept. Likewise.
    """

    allowed_buckets: tuple[str, ...] = ()
    allowed_volumes: tuple[str, ...] = ()
    allowed_infra: tuple[str, ...] = ()
    allow_task_keys: tuple[str, ...] = ()
    default_autostop_minutes: int = 60
    log_wait_seconds: int = 0
