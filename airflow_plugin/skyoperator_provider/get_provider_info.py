"""What Airflow's provider manager is told. It imports this at every start, so nothing of Airflow is imported here."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the metadata, as provider_info.schema.json wants it."""
    return {
        "package-name": "airflow-provider-skyoperator",
        "name": "skyoperator",
        "description": "SkyClusters: jobs that the skyoperator runs with SkyPilot.",
    }
