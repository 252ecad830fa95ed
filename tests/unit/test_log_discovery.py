"""What kube-apiserver and kubectl learn of the group: enough to be content, and nothing that could be listed, deleted or mistaken."""

from __future__ import annotations

from typing import Any

import pytest
from skyoperator.logs.web.discovery import wants_aggregated

from tests.unit.log_server import ROOT, MemoryLogs, Rights, running

# As kube-aggregator 0.34 and kubectl 1.34 send it (k8s.io/client-go, discovery/discovery_client.go).
V2, V2BETA1 = (f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1"))


async def asked(path: str, **headers: str) -> tuple[int, Any, Any]:
    rights = Rights(allowed=False)
    async with running(MemoryLogs(), authorizer=rights) as server, server.client() as client, client.get(path, headers=headers) as answer:
        assert rights.asked == [], "discovery is for whoever is somebody, as in Kubernetes (system:discovery)"
        return answer.status, await answer.json() if answer.status != 304 else None, answer.headers


async def test_the_group_version_lists_what_is_served() -> None:
    status, body, headers = await asked(ROOT, Accept="application/json")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert (body["kind"], body["apiVersion"], body["groupVersion"]) == ("APIResourceList", "v1", "logs.skyoperator.dev/v1alpha1")
    assert {resource["name"]: resource["kind"] for resource in body["resources"]} == {
        "skyclusters/log": "SkyClusterLog",
        "skyclusters/result": "SkyClusterResult",
    }
    assert all(resource["namespaced"] and resource["verbs"] == ["get"] for resource in body["resources"])


async def test_the_group_and_the_groups_name_one_version() -> None:
    _, group, _ = await asked("/apis/logs.skyoperator.dev")
    _, groups, _ = await asked("/apis", Accept="application/json")
    version = {"groupVersion": "logs.skyoperator.dev/v1alpha1", "version": "v1alpha1"}
    assert group == {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": "logs.skyoperator.dev",
        "versions": [version],
        "preferredVersion": version,
    }
    assert (groups["kind"], [entry["name"] for entry in groups["groups"]]) == ("APIGroupList", ["logs.skyoperator.dev"])


async def test_aggregated_discovery_says_the_same() -> None:
    status, body, headers = await asked("/apis", Accept=f"{V2},{V2BETA1}")
    assert (status, headers["Content-Type"]) == (200, V2)
    ((group,), _, legacy) = body["items"], None, (await asked(ROOT))[1]
    (version,) = group["versions"]
    (resource,) = version["resources"]
    assert (group["metadata"]["name"], version["version"], version["freshness"]) == ("logs.skyoperator.dev", "v1alpha1", "Current")
    found = [
        (f"{resource['resource']}/{sub['subresource']}", sub["responseKind"]["kind"], sub["verbs"]) for sub in resource["subresources"]
    ]
    assert found == [(entry["name"], entry["kind"], entry["verbs"]) for entry in legacy["resources"]]


async def test_there_is_no_second_kind_of_that_name_and_nothing_to_list_or_delete() -> None:
    """A parent with a kind would compete with the CRD's `skyclusters`; one with verbs would be emptied with the namespace."""
    resource = (await asked("/apis", Accept=V2))[1]["items"][0]["versions"][0]["resources"][0]
    assert resource["responseKind"] == {"group": "", "version": "", "kind": ""}
    assert resource["verbs"] == []


async def test_what_is_known_already_is_not_sent_again() -> None:
    _, _, headers = await asked("/apis", Accept=V2)
    assert (await asked("/apis", Accept=V2, **{"If-None-Match": headers["ETag"]}))[0] == 304
    assert (await asked("/apis", Accept=V2, **{"If-None-Match": '"other"'}))[0] == 200


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/logs.skyoperator.dev/v1alpha1"])
async def test_there_is_no_openapi_and_it_says_so(path: str) -> None:
    status, body, _ = await asked(path)
    assert (status, body["kind"], body["reason"]) == (404, "Status", "NotFound")


@pytest.mark.parametrize(
    ("accept", "aggregated"),
    [
        (V2, True),
        ("application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io, application/json;q=0.9", True),
        (V2BETA1, False),
        ("application/json", False),
        ("application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_only_who_asks_for_it_gets_the_aggregated_document(accept: str, *, aggregated: bool) -> None:
    assert wants_aggregated(accept) is aggregated
