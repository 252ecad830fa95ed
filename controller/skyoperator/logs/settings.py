"""What the installer decides about logs, from environment variables. The Helm chart sets them all, from the values under `logs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skyoperator.settings import PREFIX, port, positive, required, served_namespaces

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log process's settings."""

    skypilot_endpoint: str
    """The SkyPilot API server, e.g. http://skypilot:46580."""
    credentials_dir: Path
    """Where its credentials are mounted: files `token`, or `username` and `password`."""
    login_secret: str
    """The Secret of our namespace that keeps the login which is made with those credentials; empty: use them as they are."""
    namespaces: tuple[str, ...]
    """Where SkyClusters are served; empty: everywhere."""
    instance: str
    """Which installation this is: <namespace>/<release>."""
    log_level: str
    namespace: str
    """Where we run: the release's."""
    directory: Path
    """Where the logs are kept: the volume."""
    retention_days: int
    """For how long after its object is gone."""
    max_log_bytes: int
    max_total_bytes: int
    interval_seconds: int
    """How often a job's log is asked for that nobody follows."""
    max_followers: int
    """How many may follow logs at a time, of all users."""
    https_port: int
    metrics_port: int
    service: str
    """The Service's name: in the certificate, and in the APIService."""
    cluster_domain: str
    certificate_secret: str
    authority_config_map: str
    """Where the certificate's authorities are published for who comes with a token."""
    api_service: str
    """The APIService that is to hold them too; empty: the aggregation door is not opened."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> LogSettings:
        """Return the settings. Raises SettingsError."""
        return cls(
            skypilot_endpoint=required(environment, "SKYPILOT_ENDPOINT").rstrip("/"),
            credentials_dir=Path(required(environment, "CREDENTIALS_DIR")),
            login_secret=environment.get(PREFIX + "LOGIN_SECRET", ""),
            namespaces=served_namespaces(environment),
            instance=required(environment, "INSTANCE"),
            log_level=environment.get(PREFIX + "LOG_LEVEL", "INFO").upper(),
            namespace=required(environment, "LOGS_NAMESPACE"),
            directory=Path(required(environment, "LOGS_DIRECTORY")),
            retention_days=positive(environment, "LOGS_RETENTION_DAYS", "14"),
            max_log_bytes=positive(environment, "LOGS_MAX_LOG_MIB", "64") * MIB,
            max_total_bytes=positive(environment, "LOGS_MAX_TOTAL_MIB", "8192") * MIB,
            interval_seconds=positive(environment, "LOGS_INTERVAL_SECONDS", "30"),
            max_followers=positive(environment, "LOGS_MAX_FOLLOWERS", "512"),
            https_port=port(environment, "LOGS_HTTPS_PORT", "8443"),
            metrics_port=port(environment, "LOGS_METRICS_PORT", "8080"),
            service=required(environment, "LOGS_SERVICE"),
            cluster_domain=environment.get(PREFIX + "LOGS_CLUSTER_DOMAIN") or "cluster.local",
            certificate_secret=required(environment, "LOGS_CERTIFICATE_SECRET"),
            authority_config_map=required(environment, "LOGS_AUTHORITY_CONFIG_MAP"),
            api_service=environment.get(PREFIX + "LOGS_API_SERVICE", ""),
        )
