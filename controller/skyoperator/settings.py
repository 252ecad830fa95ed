"""What the installer decides, from environment variables. The Helm chart sets them all."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from skyoperator.task import Policy, PolicyError, read_policy

PREFIX = "SKYOPERATOR_"


class SettingsError(ValueError):
    """A variable is missing or makes no sense; says which and what to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The controller's settings."""

    skypilot_endpoint: str
    """The SkyPilot API server, e.g. http://skypilot:46580."""
    credentials_dir: Path
    """Where its credentials are mounted: files `token`, or `username` and `password`."""
    login_secret: str
    """The Secret of the release's namespace that keeps the login which we make with those credentials; empty: use them as they are."""
    namespaces: tuple[str, ...]
    """Where SkyClusters are served; empty: everywhere."""
    instance: str
    """Which installation this is: <namespace>/<release>."""
    lease_namespace: str
    lease_name: str
    holder: str
    """Our name on the lease: the pod's."""
    policy: Policy
    """What the installer allows in tasks, and what applies where an object says nothing."""
    http_port: int
    log_level: str
    max_in_flight_launches: int
    """How many launches SkyPilot is handed at a time."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Return the settings. Raises SettingsError."""
        return cls(
            skypilot_endpoint=required(environment, "SKYPILOT_ENDPOINT").rstrip("/"),
            credentials_dir=Path(required(environment, "CREDENTIALS_DIR")),
            login_secret=environment.get(PREFIX + "LOGIN_SECRET", ""),
            namespaces=served_namespaces(environment),
            instance=required(environment, "INSTANCE"),
            lease_namespace=required(environment, "LEASE_NAMESPACE"),
            lease_name=required(environment, "LEASE_NAME"),
            holder=environment.get(PREFIX + "POD_NAME") or socket.gethostname(),
            policy=replace(
                _policy(environment.get(PREFIX + "POLICY") or "{}"), log_wait_seconds=whole(environment, "LOG_WAIT_SECONDS", "0")
            ),
            http_port=port(environment, "HTTP_PORT", "8080"),
            log_level=environment.get(PREFIX + "LOG_LEVEL", "INFO").upper(),
            max_in_flight_launches=positive(environment, "MAX_IN_FLIGHT_LAUNCHES", "8"),
        )


def required(environment: Mapping[str, str], name: str) -> str:
    """Return a variable that the chart sets. Raises SettingsError if it is not there."""
    value = environment.get(PREFIX + name, "")
    if not value:
        raise SettingsError(f"{PREFIX}{name} is not set; the Helm chart sets it, see deploy/helm/skyoperator")
    return value


def _policy(text: str) -> Policy:
    try:
        return read_policy(json.loads(text))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{PREFIX}POLICY is not JSON: {error}; the Helm chart writes it from the values under policy") from error
    except PolicyError as error:
        raise SettingsError(f"{error}; correct it in the values of the Helm chart, from which {PREFIX}POLICY is made") from error


def whole(environment: Mapping[str, str], name: str, default: str) -> int:
    """Return a number, 0 or more. Raises SettingsError."""
    text = environment.get(PREFIX + name) or default
    if not (text.isascii() and text.isdecimal()):
        raise SettingsError(f"{PREFIX}{name} must be a whole number, not {text!r}")
    return int(text)


def served_namespaces(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return where SkyClusters are served; none means everywhere."""
    return tuple(name.strip() for name in environment.get(PREFIX + "NAMESPACES", "").split(",") if name.strip())


def positive(environment: Mapping[str, str], name: str, default: str) -> int:
    """Return a number above 0. Raises SettingsError."""
    text = environment.get(PREFIX + name) or default
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise SettingsError(f"{PREFIX}{name} must be a whole number above 0, not {text!r}")
    return int(text)


def port(environment: Mapping[str, str], name: str, default: str) -> int:
    """Return a port number. Raises SettingsError."""
    text = environment.get(PREFIX + name, default)
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise SettingsError(f"{PREFIX}{name} must be a port number, not {text!r}")
    return int(text)
