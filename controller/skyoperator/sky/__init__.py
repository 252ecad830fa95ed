"""The SkyPilot API server as an async client: typed values, one Protocol, one implementation over HTTP.

It knows neither kopf nor Kubernetes, and never imports SkyPilot: both pin what the other cannot have.
"""

from skyoperator.sky.client import POST_TIMEOUT_SECONDS, USER, SkyPilotClient
from skyoperator.sky.credentials import Credentials, LoginStore, MintedLogin, NoCredentials, SecretDirectory
from skyoperator.sky.types import (
    UID_LABEL,
    Cluster,
    ClusterNotUp,
    ClusterStatus,
    Job,
    JobStatus,
    Launched,
    NoSuchCluster,
    Request,
    RequestError,
    RequestFailed,
    RequestStatus,
    SkyPilot,
    SkyPilotError,
    SkyPilotRefused,
    SkyPilotRejectsUs,
    SkyPilotUnreachable,
    UnknownRequest,
)

__all__ = [
    "POST_TIMEOUT_SECONDS",
    "UID_LABEL",
    "USER",
    "Cluster",
    "ClusterNotUp",
    "ClusterStatus",
    "Credentials",
    "Job",
    "JobStatus",
    "Launched",
    "LoginStore",
    "MintedLogin",
    "NoCredentials",
    "NoSuchCluster",
    "Request",
    "RequestError",
    "RequestFailed",
    "RequestStatus",
    "SecretDirectory",
    "SkyPilot",
    "SkyPilotClient",
    "SkyPilotError",
    "SkyPilotRefused",
    "SkyPilotRejectsUs",
    "SkyPilotUnreachable",
    "UnknownRequest",
]
