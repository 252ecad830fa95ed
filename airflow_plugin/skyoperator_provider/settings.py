"""The section [skyoperator] of airflow.cfg; get_provider_info declares it."""

from __future__ import annotations

from typing import Final

from airflow.providers.common.compat.sdk import conf

from skyoperator_provider.manifest import Defaults

SECTION: Final = "skyoperator"
DEFAULT_DEPLOYMENT: Final = "default"


def deployment() -> str:
    """Return which Airflow deployment this is, unless a connection says it."""
    return conf.get(SECTION, "deployment", fallback="") or DEFAULT_DEPLOYMENT


def dashboard_url() -> str | None:
    """Return where SkyPilot's dashboard is, unless a connection says it; None if nobody says."""
    return conf.get(SECTION, "dashboard_url", fallback="") or None


def defaults() -> Defaults:
    """Return what an object gets that says nothing itself. Raises AirflowConfigException for what is no number."""
    built_in = Defaults()
    return Defaults(
        active_deadline_seconds=conf.getint(SECTION, "active_deadline_seconds", fallback=built_in.active_deadline_seconds),
        ttl_seconds_after_finished=conf.getint(SECTION, "ttl_seconds_after_finished", fallback=built_in.ttl_seconds_after_finished),
        autostop_idle_minutes=conf.getint(SECTION, "autostop_idle_minutes", fallback=built_in.autostop_idle_minutes),
    )
