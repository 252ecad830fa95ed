"""The log process's settings: what is missing or makes no sense is refused at the start, by its name."""

from __future__ import annotations

import pytest
from skyoperator.logs.settings import LogSettings
from skyoperator.settings import PREFIX, SettingsError

ENOUGH = {
    "SKYPILOT_ENDPOINT": "http://sky:46580/",
    "CREDENTIALS_DIR": "/credentials",
    "INSTANCE": "skyoperator/release",
    "LOGS_NAMESPACE": "skyoperator",
    "LOGS_DIRECTORY": "/logs",
    "LOGS_SERVICE": "logs",
    "LOGS_CERTIFICATE_SECRET": "logs-tls",
    "LOGS_AUTHORITY_CONFIG_MAP": "logs-ca",
}


def settings(**variables: str) -> LogSettings:
    return LogSettings.from_environment({PREFIX + name: value for name, value in {**ENOUGH, **variables}.items() if value})


@pytest.mark.parametrize("name", ENOUGH)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=PREFIX + name):
        settings(**{name: ""})


@pytest.mark.parametrize(
    "name", ["LOGS_RETENTION_DAYS", "LOGS_MAX_LOG_MIB", "LOGS_MAX_TOTAL_MIB", "LOGS_INTERVAL_SECONDS", "LOGS_MAX_FOLLOWERS"]
)
@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²"])
def test_bounds_are_numbers_above_zero(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{PREFIX}{name} must be .* not '{text}'"):
        settings(**{name: text})


@pytest.mark.parametrize("name", ["LOGS_HTTPS_PORT", "LOGS_METRICS_PORT"])
@pytest.mark.parametrize("text", ["65536", "-1", "https"])
def test_ports_are_ports(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{PREFIX}{name} must be a port number, not '{text}'"):
        settings(**{name: text})


def test_the_aggregation_door_is_shut_unless_it_is_named() -> None:
    assert settings().api_service == ""
