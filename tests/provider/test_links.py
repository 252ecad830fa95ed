"""The button to SkyPilot's dashboard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseOperatorLink
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.links import XCOM_KEY, SkyClusterLink, persist, url

from tests.provider.airflows import HAS_SDK, DagSerialization

KEY: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)


class Pushed:
    """The XComs of one task instance, as the worker has them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.values[key] = value

    def get_value(self, *, ti_key: Any, key: str) -> Any:
        assert ti_key is KEY
        return self.values.get(key)


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> Pushed:
    found = Pushed()
    monkeypatch.setattr("skyoperator_provider.links.XCom", found)
    return found


@pytest.mark.parametrize(
    ("dashboard_url", "cluster", "expected"),
    [
        ("https://sky.example.com/dashboard", "fit-1234", "https://sky.example.com/dashboard/clusters/fit-1234"),
        ("https://sky.example.com/dashboard/", "fit-1234", "https://sky.example.com/dashboard/clusters/fit-1234"),
        ("http://sky/dashboard", None, "http://sky/dashboard/clusters"),
        (None, "fit-1234", ""),
        ("", "fit-1234", ""),
        ("javascript:alert(1)//", "fit-1234", ""),
        ("sky.example.com", "fit-1234", ""),
    ],
)
def test_where_it_leads(dashboard_url: str | None, cluster: str | None, expected: str) -> None:
    assert url(dashboard_url, cluster) == expected


@given(st.text(min_size=1))
def test_no_name_leads_elsewhere(cluster: str) -> None:
    found = url("https://sky/dashboard", cluster.encode(errors="replace").decode())
    assert "/" not in found.removeprefix("https://sky/dashboard/clusters/")


@pytest.mark.parametrize(("dashboard_url", "expected"), [("https://sky/dashboard", "https://sky/dashboard/clusters/fit"), (None, "")])
def test_what_was_written_at_submit_is_what_airflow_writes_at_the_end(pushed: Pushed, dashboard_url: str | None, expected: str) -> None:
    """Airflow 3 overwrites the XCom at the end of a try with what get_link says."""
    persist(cast("Any", {"ti": pushed}), dashboard_url, "fit")
    assert pushed.values == ({XCOM_KEY: expected} if expected else {})
    assert SkyClusterLink().get_link(cast("Any", None), ti_key=KEY) == expected


def test_airflow_looks_where_it_is_written() -> None:
    """The default key is that of the class's name; Airflow 2 has no such property, and asks for the link itself."""
    default: Any = getattr(BaseOperatorLink, "xcom_key", None)
    assert (default is not None) == HAS_SDK
    assert SkyClusterLink().xcom_key == (default.fget(SkyClusterLink()) if default else XCOM_KEY) == XCOM_KEY


def test_the_link_survives_the_serialization_of_a_dag() -> None:
    class Operator(BaseOperator):
        operator_extra_links = (SkyClusterLink(),)

    with DAG("d", schedule=None) as dag:
        Operator(task_id="t")
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    (link,) = read.get_task("t").operator_extra_links
    assert (link.name, link.xcom_key) == ("SkyPilot", XCOM_KEY)
