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
from airflow.providers.cncf.kubernetes.get_provider_info import get_provider_info as kubernetes_info
from airflow.providers_manager import ProvidersManager
from skyoperator_provider.get_provider_info import get_provider_info
from skyoperator_provider.hooks.skycluster import SkyClusterHook
from skyoperator_provider.manifest import Defaults
from skyoperator_provider.settings import defaults

from tests.provider.airflows import HooksManager

HOME = Path(airflow.__file__).parent
INFO = get_provider_info()
FIELDS = INFO["connection-types"][0]["conn-fields"]
READS_FIELDS = "conn-fields" in (HOME / "provider.yaml.schema.json").read_text()
"""Whether Airflow makes a form of what the provider says of its connection: 3.2 and later."""
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


def test_airflow_finds_the_connection_type() -> None:
    hook = HooksManager().hooks["skyoperator"]
    assert hook is not None
    assert (hook.hook_class_name, hook.hook_name) == (f"{SkyClusterHook.__module__}.SkyClusterHook", SkyClusterHook.hook_name)
    assert hook.connection_id_attribute_name == SkyClusterHook.conn_name_attr


def test_airflow_finds_the_form(manager: ProvidersManager) -> None:
    """Where it knows no fields of ours, it shows the extras as they are written."""
    form: dict[str, Any] = {
        key.removeprefix("extra__skyoperator__"): widget
        for key, widget in manager.connection_form_widgets.items()
        if key.startswith("extra__skyoperator__")
    }
    assert form.keys() == (FIELDS.keys() if READS_FIELDS else set())
    assert [name for name, widget in form.items() if widget.is_sensitive] == (["kube_config"] if READS_FIELDS else [])
    behaviour = manager.field_behaviours.get("skyoperator", SkyClusterHook.get_ui_field_behaviour())
    assert ("extra" in behaviour["hidden_fields"]) == READS_FIELDS


def test_the_form_has_what_kubernetes_connections_have() -> None:
    types = kubernetes_info()["connection-types"]  # type: ignore[no-untyped-call]
    (kubernetes,) = (known for known in types if known["connection-type"] == "kubernetes")
    fields = {key for key in kubernetes["conn-fields"] if not key.startswith("xcom_sidecar")}
    assert {"kube_config", "in_cluster"} <= fields <= FIELDS.keys()


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


def test_airflow_knows_the_section(manager: ProvidersManager) -> None:
    manager.initialize_providers_configuration()
    assert conf.get("skyoperator", "autostop_idle_minutes") == "60"
