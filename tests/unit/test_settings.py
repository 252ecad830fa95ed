"""Settings: what is missing or makes no sense is refused at the start, by its name."""

from __future__ import annotations

import pytest
from skyoperator.settings import PREFIX, Settings, SettingsError

ENOUGH = {
    "SKYPILOT_ENDPOINT": "http://sky:46580/",
    "CREDENTIALS_DIR": "/credentials",
    "INSTANCE": "skyoperator/release",
    "LEASE_NAMESPACE": "skyoperator",
    "LEASE_NAME": "controller",
}


def settings(**variables: str) -> Settings:
    return Settings.from_environment({PREFIX + name: value for name, value in {**ENOUGH, **variables}.items() if value})


@pytest.mark.parametrize("name", ENOUGH)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=PREFIX + name):
        settings(**{name: ""})


def test_launches_in_flight_are_eight_unless_said_otherwise() -> None:
    assert settings().max_in_flight_launches == 8
    assert settings(MAX_IN_FLIGHT_LAUNCHES="3").max_in_flight_launches == 3


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²"])
def test_launches_in_flight_are_a_number_above_zero(text: str) -> None:
    with pytest.raises(SettingsError, match=f"{PREFIX}MAX_IN_FLIGHT_LAUNCHES must be .* not '{text}'"):
        settings(MAX_IN_FLIGHT_LAUNCHES=text)
