"""Whose credentials a cluster gets, asked of SkyPilot's own code with the config.yaml that the chart writes."""

import json
from typing import Any

import pytest

from tests.parser.conftest import SkyPilot
from tests.unit.chart import render

# Clouds that SkyPilot's config has no remote_identity for; the chart's README names this as what the isolation does not do.
WITHOUT_A_SETTING = {
    "cudo", "do", "fluidstack", "hyperbolic", "ibm", "lambda", "mithril", "paperspace", "primeintellect", "runpod", "scp", "seeweb",
    "shadeform", "verda", "vsphere", "yotta",
}  # fmt: skip
WITH_A_SETTING = ("aws", "azure", "gcp", "kubernetes", "nebius", "oci", "slurm", "ssh", "vast")


def identity(skypilot: SkyPilot, cloud: str, region: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    config = render(skypilot=values or {}).one("ConfigMap", "-skypilot")["data"]["config.yaml"]
    return skypilot.must("identity", json.dumps({"config": config, "cloud": cloud, "region": region}))


@pytest.mark.parametrize("cloud", [*WITH_A_SETTING, "lambda"])
def test_no_credential_of_a_cloud_with_a_setting_reaches_any_cluster(skypilot: SkyPilot, cloud: str) -> None:
    """Among them the kubeconfig for other clusters, which SkyPilot counts as Kubernetes' credential."""
    uploaded = set(identity(skypilot, cloud, "somewhere")["uploaded"])
    assert uploaded <= WITHOUT_A_SETTING


def test_pods_in_this_cluster_act_as_the_account_of_the_chart(skypilot: SkyPilot) -> None:
    account = render().one("ServiceAccount", "-workloads")["metadata"]["name"]
    found = identity(skypilot, "kubernetes", "in-cluster")
    assert found["account"] == account
    assert set(found["uploaded"]) <= WITHOUT_A_SETTING


def test_what_is_not_no_upload_reaches_clusters_on_other_clouds(skypilot: SkyPilot) -> None:
    """As values.yaml says."""
    found = identity(skypilot, "gcp", "us-central1", {"remoteIdentity": {"aws": "SERVICE_ACCOUNT"}})
    assert "aws" in found["uploaded"]


def test_an_account_for_all_of_kubernetes_would_hand_out_the_kubeconfig(skypilot: SkyPilot) -> None:
    """Hence the account per context."""
    found = identity(skypilot, "aws", "us-east-1", {"config": {"kubernetes": {"remote_identity": "my-account"}}})
    assert "kubernetes" in found["uploaded"]
