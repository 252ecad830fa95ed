"""The button of a task instance that leads to its cluster in SkyPilot's dashboard.

Airflow 3 shows what stands in the XCom of the link's xcom_key, and writes that at the end of a try with what get_link says
(airflow 3.3, sdk/execution_time/task_runner.py:2315). A button is wanted while the job runs, so the operator writes it when it has
created the object, and get_link reads it back. Airflow 2 asks get_link in the webserver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

XCOM_KEY: Final = "_link_SkyClusterLink"


class SkyClusterLink(BaseOperatorLink):
    """Leads to the cluster; there is none without a dashboard_url."""

    name = "SkyPilot"

    @property
    def xcom_key(self) -> str:
        """The key under which Airflow 3 looks for the link."""
        return XCOM_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return what persist wrote; empty if it was not called."""
        found: Any = XCom.get_value(ti_key=ti_key, key=XCOM_KEY)
        return str(found or "")


def persist(context: Context, dashboard_url: str | None, cluster: str | None = None) -> None:
    """Write the link for this task instance; nothing without a dashboard_url.

    `cluster` is status.cluster.name, which the controller gives; until it is known the link leads to the list of clusters.
    """
    if address := url(dashboard_url, cluster):
        context["ti"].xcom_push(key=XCOM_KEY, value=address)


def url(dashboard_url: str | None, cluster: str | None) -> str:
    """Return the address of a cluster's page (SkyPilot 0.14: dashboard/clusters/[cluster]); empty without a dashboard_url.

    Empty too for what is no http address: whoever may edit a connection is not to run a script in the browser of who reads the DAG.
    """
    if not dashboard_url or urlsplit(dashboard_url).scheme not in {"http", "https"}:
        return ""
    page = f"{dashboard_url.rstrip('/')}/clusters"
    return f"{page}/{quote(cluster, safe='')}" if cluster else page
