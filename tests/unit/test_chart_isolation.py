"""Who may talk to whom, and what a cluster's pod may be."""

from typing import Any

from tests.unit.chart import NAMESPACE, Rendered, render

WORKLOADS = f"{NAMESPACE}-workloads"


def policy(rendered: Rendered, name: str) -> Any:
    return rendered.one("NetworkPolicy", name)["spec"]


def selects(selector: dict[str, Any], rendered: Rendered, deployment: str) -> bool:
    labels = rendered.one("Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
    return bool(selector["matchLabels"].items() <= labels.items())


def test_only_the_controller_and_the_log_process_reach_the_api_server() -> None:
    rendered = render()
    spec = policy(rendered, "-skypilot")
    assert selects(spec["podSelector"], rendered, "-skypilot")
    (rule,) = spec["ingress"]
    assert all(set(peer) == {"podSelector"} for peer in rule["from"]), "a namespaceSelector would let other namespaces in"
    let_in = [
        [name for name in ("-controller", "-logs", "-skypilot") if selects(peer["podSelector"], rendered, name)] for peer in rule["from"]
    ]
    assert let_in == [["-controller"], ["-logs"]]
    (alone,) = policy(render(logs={"enabled": False}), "-skypilot")["ingress"]
    assert alone["from"] == rule["from"][:1]


def test_the_log_process_is_reached_by_https_from_anywhere_and_for_its_metrics_as_the_controller() -> None:
    """kube-apiserver has no pod that could be selected."""
    rendered = render()
    spec = policy(rendered, "-logs")
    assert selects(spec["podSelector"], rendered, "-logs")
    https, metrics = spec["ingress"]
    assert https == {"ports": [{"port": "https"}]}
    assert metrics == policy(rendered, "-controller")["ingress"][0]
    own = [{"ipBlock": {"cidr": "10.0.0.0/24"}}]
    assert policy(render(networkPolicies={"logsFrom": own}), "-logs")["ingress"][0] == {"ports": [{"port": "https"}], "from": own}


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
    for name in ("-controller", "-skypilot", "-logs"):
        pod = render().pod(name)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
