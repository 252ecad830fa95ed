"""Who may talk to whom, and what a cluster's pod may be."""

from typing import Any

from tests.unit.chart import NAMESPACE, Rendered, render

WORKLOADS = f"{NAMESPACE}-workloads"


def policy(rendered: Rendered, name: str) -> Any:
    return rendered.one("NetworkPolicy", name)["spec"]


def selects(selector: dict[str, Any], rendered: Rendered, deployment: str) -> bool:
    labels = rendered.one("Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
    return bool(selector["matchLabels"].items() <= labels.items())


def test_only_the_controller_reaches_the_api_server() -> None:
    rendered = render()
    spec = policy(rendered, "-skypilot")
    assert selects(spec["podSelector"], rendered, "-skypilot")
    (rule,) = spec["ingress"]
    (peer,) = rule["from"]
    assert set(peer) == {"podSelector"}, "a namespaceSelector would let other namespaces in"
    assert selects(peer["podSelector"], rendered, "-controller")
    assert not selects(peer["podSelector"], rendered, "-skypilot")


def test_others_can_be_let_in() -> None:
    dashboard = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
    (rule,) = policy(render(networkPolicies={"skypilotFrom": [dashboard]}), "-skypilot")["ingress"]
    assert dashboard in rule["from"]


def test_clusters_do_not_reach_the_controller() -> None:
    (rule,) = policy(render(), "-controller")["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [WORKLOADS]}]}}
    ]


def test_clusters_take_connections_from_their_own_namespace_only() -> None:
    spec = policy(render(), "-workloads")
    assert spec["podSelector"] == {}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"from": [{"podSelector": {}}]}]


def test_single_node_clusters_can_be_kept_from_each_other() -> None:
    spec = policy(render(networkPolicies={"workloads": {"allowBetweenPods": False}}), "-workloads")
    assert spec["ingress"] == []
    assert {"podSelector": {}} not in spec["egress"][0]["to"]


def test_clusters_open_no_connection_to_the_release_namespace_or_the_metadata_service() -> None:
    (rule,) = policy(render(), "-workloads")["egress"]
    (namespaces,) = [peer["namespaceSelector"] for peer in rule["to"] if "namespaceSelector" in peer]
    assert namespaces["matchExpressions"] == [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [NAMESPACE, WORKLOADS]}]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in rule["to"] if "ipBlock" in peer}
    assert blocks == {"0.0.0.0/0": ["169.254.169.254/32"], "::/0": ["fd00:ec2::254/128"]}


def test_policies_can_be_left_out() -> None:
    assert render(networkPolicies={"enabled": False}).all("NetworkPolicy") == []


def test_the_workload_namespace_enforces_pod_security_and_outlives_the_release() -> None:
    metadata = render().one("Namespace")["metadata"]
    assert metadata["name"] == WORKLOADS
    assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert render(workloads={"createNamespace": False}).all("Namespace") == []


def test_the_api_server_has_none_of_roots_powers() -> None:
    rendered = render()
    assert rendered.pod("-skypilot")["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert rendered.container("-skypilot")["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_no_pod_of_ours_shares_anything_with_its_node() -> None:
    for name in ("-controller", "-skypilot"):
        pod = render().pod(name)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
