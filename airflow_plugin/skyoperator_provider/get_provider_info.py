"""What Airflow's provider manager is told. It imports this at every start, so nothing of Airflow is imported here."""

from __future__ import annotations

from typing import Any, Final

_INTEGRATION: Final = "skyoperator"
_TEXT: Final = {"type": ["string", "null"]}
_SWITCH: Final = {"type": ["boolean", "null"]}
_PASSWORD: Final = {"type": ["string", "null"], "format": "password"}


def get_provider_info() -> dict[str, Any]:
    """Return the metadata, as provider_info.schema.json wants it."""
    return {
        "package-name": "airflow-provider-skyoperator",
        "name": "skyoperator",
        "description": "SkyClusters: jobs that the skyoperator runs with SkyPilot.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["software"]}],
        "hooks": _modules("hooks.skycluster"),
        "operators": _modules("operators.skycluster"),
        "sensors": _modules("sensors.skycluster"),
        "triggers": _modules("triggers.skycluster"),
        "connection-types": [
            {
                "connection-type": "skyoperator",
                "hook-class-name": "skyoperator_provider.hooks.skycluster.SkyClusterHook",
                "hook-name": "Kubernetes with skyoperator",
                "conn-fields": _fields(),
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port", "extra"],
                    "placeholders": {
                        "namespace": "default",
                        "deployment": "production",
                        "dashboard_url": "https://sky.example.com/dashboard",
                    },
                },
            }
        ],
        "task-decorators": [{"name": "sky", "class-name": "skyoperator_provider.decorators.sky.sky_task"}],
        "extra-links": ["skyoperator_provider.links.SkyClusterLink"],
        "config": {"skyoperator": {"description": "SkyClusters from Airflow.", "options": _options()}},
    }


def _modules(name: str) -> list[dict[str, Any]]:
    return [{"integration-name": _INTEGRATION, "python-modules": [f"skyoperator_provider.{name}"]}]


def _fields() -> dict[str, Any]:
    """Return the form's fields: those of a Kubernetes connection that mean something here, and our own."""
    return {
        "in_cluster": _field("In cluster configuration", _SWITCH, "Use the service account of the pod that Airflow runs in."),
        "kube_config_path": _field("Kube config path", _TEXT, "A file on the workers and on the triggerers."),
        "kube_config": _field("Kube config (JSON format)", _PASSWORD, "The file's content, in place of a path."),
        "cluster_context": _field("Cluster context", _TEXT, "The kubeconfig's current one otherwise."),
        "namespace": _field("Namespace", _TEXT, "Where SkyClusters are made, unless a task says it."),
        "disable_verify_ssl": _field("Disable SSL", _SWITCH, "Do not verify the API server's certificate."),
        "disable_tcp_keepalive": _field("Disable TCP keepalive", _SWITCH, ""),
        "deployment": _field(
            "Airflow deployment", _TEXT, "A name for this Airflow: two that share a namespace must not take each other's clusters."
        ),
        "dashboard_url": _field("SkyPilot dashboard", _TEXT, "Where the button SkyPilot of a task leads. Without it there is no button."),
    }


def _field(label: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"label": label, "schema": schema, **({"description": description} if description else {})}


def _options() -> dict[str, Any]:
    return {
        "deployment": _option(
            "A name for this Airflow. Two that share a namespace must not take each other's clusters.", "string", "default"
        ),
        "dashboard_url": _option(
            "Where SkyPilot's dashboard is, for the button of a task.", "string", "", "https://sky.example.com/dashboard"
        ),
        "active_deadline_seconds": _option(
            "How long a task without execution_timeout may take, all its launches together.", "integer", "86400"
        ),
        "ttl_seconds_after_finished": _option("How long a finished SkyCluster stays if no task deletes it.", "integer", "86400"),
        "autostop_idle_minutes": _option("After how many minutes without a job a cluster ends.", "integer", "60"),
    }


def _option(description: str, type_: str, default: str, example: str | None = None) -> dict[str, Any]:
    return {"description": f"{description}\n", "version_added": "0.1.0", "type": type_, "example": example, "default": default}
