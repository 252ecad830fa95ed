"""What Airflow is told of the package, and what it makes of that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from skyoperator_provider.get_provider_info import get_provider_info
from skyoperator_provider.hooks.skycluster import SkyClusterHook
from skyoperator_provider.manifest import Defaults
from skyoperator_provider.settings import defaults

HOME = Path(airflow.__file__).parent
INFO = get_provider_info()
NUMBERS = ("active_deadline_seconds", "ttl_seconds_after_finished", "autostop_idle_minutes")
PACKAGE = Path(__file__).parents[2] / "airflow_plugin"


@pytest.mark.parametrize("schema", ["provider_info.schema.json"])
def test_it_is_what_airflow_wants(schema: str) -> None:
    jsonschema.validate(INFO, json.loads((HOME / schema).read_text()))


@pytest.mark.parametrize("key", ["connection-types", "config", "task-decorators", "hooks", "operators", "sensors", "triggers"])
def test_each_part_is_what_airflows_own_providers_write(key: str) -> None:
    """The schema of provider.yaml is the stricter one, and knows the fields of connection forms."""
    whole = json.loads((HOME / "provider.yaml.schema.json").read_text())
    schema = {**whole["properties"][key], "definitions": whole.get("definitions", {})}
    jsonschema.validate(INFO[key], schema)


def test_nothing_of_airflow_is_imported_for_it() -> None:
    """It is read at every start of every process."""
    script = (
        "import sys; from skyoperator_provider.get_provider_info import get_provider_info; get_provider_info();"
        "print([name for name in sys.modules if name.split('.')[0] in ('airflow', 'kubernetes', 'yaml')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def manager() -> ProvidersManager:
    return ProvidersManager()  # type: ignore[no-untyped-call]


def test_airflow_finds_the_connection_type_and_its_form(manager: ProvidersManager) -> None:
    hook = ProvidersManagerTaskRuntime().hooks["skyoperator"]  # type: ignore[no-untyped-call]
    assert hook is not None
    assert (hook.hook_class_name, hook.hook_name) == (f"{SkyClusterHook.__module__}.SkyClusterHook", SkyClusterHook.hook_name)
    assert hook.connection_id_attribute_name == SkyClusterHook.conn_name_attr
    form: dict[str, Any] = {
        key.removeprefix("extra__skyoperator__"): widget
        for key, widget in manager.connection_form_widgets.items()
        if key.startswith("extra__skyoperator__")
    }
    assert {"namespace", "deployment", "dashboard_url", "kube_config", "kube_config_path", "in_cluster", "cluster_context"} <= form.keys()
    assert [name for name, widget in form.items() if widget.is_sensitive] == ["kube_config"]


def test_the_form_has_what_kubernetes_connections_have(manager: ProvidersManager) -> None:
    kubernetes = {key.split("__")[2] for key in manager.connection_form_widgets if key.startswith("extra__kubernetes__")}
    ours = {key.split("__")[2] for key in manager.connection_form_widgets if key.startswith("extra__skyoperator__")}
    assert {key for key in kubernetes if not key.startswith("xcom_sidecar")} <= ours


def test_airflow_2_shows_the_extras_that_have_no_field_there() -> None:
    assert "extra" not in SkyClusterHook.get_ui_field_behaviour()["hidden_fields"]


def test_the_extra_link_is_found(manager: ProvidersManager) -> None:
    assert "skyoperator_provider.links.SkyClusterLink" in manager.extra_links_class_names


def test_defaults_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options = INFO["config"]["skyoperator"]["options"]
    built_in = Defaults()
    for key in NUMBERS:
        assert int(options[key]["default"]) == getattr(built_in, key)
    assert defaults() == built_in
    monkeypatch.setenv("AIRFLOW__SKYOPERATOR__ACTIVE_DEADLINE_SECONDS", "60")
    assert defaults() == Defaults(active_deadline_seconds=60)
    assert options.keys() == {"deployment", "dashboard_url", *NUMBERS}


def test_airflow_knows_the_section() -> None:
    assert conf.get("skyoperator", "autostop_idle_minutes") == "60"
