"""Nobody gets more rights than docs/rbac.md says, and nobody gets them all."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.chart import BUILT_IN, NAMESPACE, refusal, render

WORKLOADS = f"{NAMESPACE}-workloads"
EVERYTHING_ON: dict[str, Any] = {
    "watchAllNamespaces": True,
    "skypilot": {"rbac": {"volumes": True}},
    "controller": {"metrics": {"serviceMonitor": {"enabled": True}}},
    "airflow": {"accounts": [{"namespace": "airflow", "name": "worker"}]},
}
AIRFLOW = {"accounts": [{"namespace": "airflow", "name": "worker"}, {"namespace": "airflow", "name": "triggerer"}]}
VARIANTS = pytest.mark.parametrize("values", [{}, EVERYTHING_ON], ids=["defaults", "everything on"])
ACCOUNTS = ("skyoperator-controller", "skyoperator-skypilot", "skyoperator-workloads")
ESCALATING = {"secrets", "roles", "rolebindings", "clusterroles", "clusterrolebindings", "serviceaccounts", "serviceaccounts/token"}

Right = tuple[str, str, str]  # API group, resource, verb


def rights(account: str, namespace: str, **values: Any) -> set[Right]:
    found = (rule for where, rule in render(**values).rules(account) if where == namespace)
    return {(group, kind, verb) for rule in found for group in rule["apiGroups"] for kind in rule["resources"] for verb in rule["verbs"]}


def documented(heading: str) -> set[Right]:
    """The rights in the table under a heading of docs/rbac.md: | API group | resources | verbs | why |."""
    text = (Path(__file__).parents[2] / "docs" / "rbac.md").read_text()
    (section,) = re.findall(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]
    return set(_rights_of_rows(rows))


def _rights_of_rows(rows: list[list[str]]) -> Iterator[Right]:
    for groups, resources, verbs, _why in rows:
        for group in groups.split(", "):
            for resource in resources.split(", "):
                yield from (("" if group == "core" else group, resource, verb) for verb in verbs.split(", "))


@VARIANTS
def test_no_wildcard_and_no_cluster_admin(values: dict[str, Any]) -> None:
    rendered = render(**values)
    for role in rendered.all("Role") + rendered.all("ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], role["metadata"]["name"]
            assert "nonResourceURLs" not in rule, role["metadata"]["name"]
    for binding in rendered.all("RoleBinding") + rendered.all("ClusterRoleBinding"):
        ours = rendered.all(binding["roleRef"]["kind"])
        known = {role["metadata"]["name"] for role in ours} | {name for kind, name in BUILT_IN if kind == binding["roleRef"]["kind"]}
        assert binding["roleRef"]["name"] in known, "a role that is not in the chart"


def may_be_had_by_name(rule: dict[str, Any]) -> bool:
    """Secrets that an object names, as who can't list them can't find the others; and those that are controller's and logs' own."""
    if rule.get("resourceNames") in (["skyoperator-skypilot-login"], ["skyoperator-logs-tls"]):
        return bool(rule["resources"] == ["secrets"] and set(rule["verbs"]) <= {"get", "update"})
    return rule["verbs"] == ["get"] and set(rule["resources"]) <= {"configmaps", "secrets"}


@VARIANTS
def test_nobody_can_give_himself_more(values: dict[str, Any]) -> None:
    for role in render(**values).all("Role") + render(**values).all("ClusterRole"):
        for rule in role["rules"]:
            assert not ESCALATING & set(rule["resources"]) or may_be_had_by_name(rule), role["metadata"]["name"]
            assert not {"impersonate", "escalate", "bind"} & set(rule["verbs"]), role["metadata"]["name"]


@pytest.mark.parametrize(
    ("heading", "account", "namespace"),
    [
        ("Controller, in each watched namespace", "skyoperator-controller", "default"),
        ("Controller, in the release namespace", "skyoperator-controller", NAMESPACE),
        ("Log process, in each watched namespace", "skyoperator-logs", "default"),
        ("Log process, in the release namespace", "skyoperator-logs", NAMESPACE),
        ("Log process, cluster-wide", "skyoperator-logs", ""),
        ("SkyPilot API server, in the workload namespace", "skyoperator-skypilot", WORKLOADS),
        ("SkyPilot API server, cluster-wide", "skyoperator-skypilot", ""),
        ("Clusters, in the workload namespace", "skyoperator-workloads", WORKLOADS),
    ],
)
def test_the_documented_rights_are_the_granted_ones(heading: str, account: str, namespace: str) -> None:
    assert rights(account, namespace) == documented(heading)


@pytest.mark.parametrize(
    ("account", "namespaces"),
    [
        ("skyoperator-controller", {"default", NAMESPACE}),
        ("skyoperator-logs", {"default", NAMESPACE, ""}),
        ("skyoperator-skypilot", {WORKLOADS, ""}),
        ("skyoperator-workloads", {WORKLOADS}),
    ],
)
def test_nobody_has_rights_elsewhere(account: str, namespaces: set[str]) -> None:
    assert {namespace for namespace, _ in render().rules(account)} == namespaces


def test_the_controller_reaches_only_the_namespaces_it_watches() -> None:
    where = {namespace for namespace, _ in render(watchNamespaces=["ml", "research"]).rules("skyoperator-controller")}
    assert where == {"ml", "research", NAMESPACE}


def test_watching_every_namespace_takes_the_same_rights_everywhere() -> None:
    assert rights("skyoperator-controller", "", watchAllNamespaces=True) == rights("skyoperator-controller", "default")


def test_a_server_of_ones_own_takes_no_right_to_any_secret() -> None:
    own = {"enabled": False, "endpoint": "https://sky.example.com", "credentialsSecret": "sky-login"}
    assert not {right for right in rights("skyoperator-controller", NAMESPACE, skypilot=own) if right[1] == "secrets"}


def test_the_lease_and_the_login_are_had_by_name_only() -> None:
    here = [
        rule for namespace, rule in render().rules("skyoperator-controller") if namespace == NAMESPACE and "create" not in rule["verbs"]
    ]
    names = {tuple(rule["resources"]): rule["resourceNames"] for rule in here}
    assert names == {("leases",): ["skyoperator-controller"], ("secrets",): ["skyoperator-skypilot-login"]}


def test_without_autodown_a_cluster_may_do_nothing() -> None:
    assert list(render(workloads={"autodown": False}).rules("skyoperator-workloads")) == []


def test_autodown_comes_with_the_policy_that_narrows_it() -> None:
    policy = render().one("ValidatingAdmissionPolicy")
    binding = render().one("ValidatingAdmissionPolicyBinding")
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    operations = {
        (operation, resource)
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for operation in rule["operations"]
        for resource in rule["resources"]
    }
    writes = {(verb.upper(), resource) for _, resource, verb in rights("skyoperator-workloads", WORKLOADS) if verb != "list"}
    assert operations == writes, "every right to write has to be narrowed"


def test_tokens_are_mounted_only_where_they_are_used() -> None:
    for account in render().all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, account["metadata"]["name"]
    for name in ("-controller", "-skypilot", "-logs"):
        assert render().pod(name)["automountServiceAccountToken"] is True


def test_cluster_scoped_names_carry_the_release() -> None:
    for kind in ("ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        for item in render(**EVERYTHING_ON).all(kind):
            assert item["metadata"]["name"].startswith(f"skyoperator.{NAMESPACE}."), item["metadata"]["name"]


def test_viewers_only_read_and_nobody_edits_status() -> None:
    view, edit = render().one("ClusterRole", ".view"), render().one("ClusterRole", ".edit")
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    resources = {"skyclusters", "skyclusters/log", "skyclusters/result"}
    assert {resource for role in (view, edit) for rule in role["rules"] for resource in rule["resources"]} == resources
    labels = "rbac.authorization.k8s.io/aggregate-to-{}".format
    assert view["metadata"]["labels"][labels("view")] == "true"
    assert labels("view") not in edit["metadata"]["labels"]


def test_who_may_read_an_object_may_read_its_log() -> None:
    def of_logs(**values: Any) -> list[dict[str, Any]]:
        return [rule for rule in render(**values).one("ClusterRole", ".view")["rules"] if "logs.skyoperator.dev" in rule["apiGroups"]]

    assert of_logs() == [{"apiGroups": ["logs.skyoperator.dev"], "resources": ["skyclusters/log", "skyclusters/result"], "verbs": ["get"]}]
    assert of_logs(logs={"enabled": False}) == []


def test_logs_are_read_by_whoever_kubernetes_says_may_and_the_process_itself_changes_next_to_nothing() -> None:
    writes = {
        (namespace, resource, verb)
        for namespace, rule in render(**EVERYTHING_ON).rules("skyoperator-logs")
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in {"get", "list", "watch"}
    }
    assert writes == {
        ("", "tokenreviews", "create"),
        ("", "subjectaccessreviews", "create"),
        ("", "skyclusters/status", "patch"),
        ("", "apiservices", "patch"),
        (NAMESPACE, "secrets", "update"),
        (NAMESPACE, "configmaps", "update"),
    }


def test_the_log_process_has_what_it_writes_by_name_only() -> None:
    rules = [
        rule for where, rule in render(**EVERYTHING_ON).rules("skyoperator-logs") if "resourceNames" in rule and where != "kube-system"
    ]
    names = [(rule["resources"], rule["resourceNames"]) for rule in rules]
    assert names == [
        (["secrets"], ["skyoperator-logs-tls"]),
        (["configmaps"], ["skyoperator-logs-ca"]),
        (["secrets"], ["skyoperator-skypilot-login"]),
        (["apiservices"], ["v1alpha1.logs.skyoperator.dev"]),
    ]
    unnamed = [rule for _, rule in render(**EVERYTHING_ON).rules("skyoperator-logs") if "resourceNames" not in rule]
    assert not {"secrets", "configmaps", "apiservices"} & {resource for rule in unnamed for resource in rule["resources"]}


def test_the_log_process_reaches_only_the_namespaces_that_are_watched() -> None:
    where = {namespace for namespace, _ in render(watchNamespaces=["ml", "research"]).rules("skyoperator-logs")}
    assert where == {"ml", "research", NAMESPACE, ""}


def test_the_way_through_kube_apiserver_takes_two_rights_more() -> None:
    with_it = {"watchNamespaces": ["default"], "logs": {"apiService": {"enabled": True}}}
    assert rights("skyoperator-logs", "kube-system") == set()
    assert rights("skyoperator-logs", "kube-system", **with_it) == documented("Log process, with the aggregation door, in kube-system")
    more = rights("skyoperator-logs", "", **with_it) - rights("skyoperator-logs", "")
    assert more == documented("Log process, with the aggregation door, cluster-wide")


def test_without_logs_none_of_it_is_there() -> None:
    rendered = render(watchAllNamespaces=True, logs={"enabled": False})
    assert list(rendered.rules("skyoperator-logs")) == []
    assert not [item["metadata"]["name"] for item in rendered.objects if "logs" in item["metadata"]["name"]]


@pytest.mark.parametrize("account", ["worker", "triggerer"])
def test_airflow_has_what_is_documented_in_each_watched_namespace_and_nothing_elsewhere(account: str) -> None:
    watched = {"airflow": AIRFLOW, "watchNamespaces": ["ml", "research"]}
    assert {namespace for namespace, _ in render(**watched).rules(account)} == {"ml", "research"}
    for namespace in ("ml", "research"):
        assert rights(account, namespace, **watched) == documented("Airflow, in each watched namespace")
    everywhere = {"airflow": AIRFLOW, "watchAllNamespaces": True}
    assert {namespace for namespace, _ in render(**everywhere).rules(account)} == {""}
    assert rights(account, "", **everywhere) == documented("Airflow, in each watched namespace")


def test_airflow_has_nothing_unless_its_accounts_are_named() -> None:
    for values in ({}, {"watchAllNamespaces": True}):
        assert not [item["metadata"]["name"] for item in render(**values).objects if "airflow" in item["metadata"]["name"]]


def test_airflow_accounts_are_those_of_their_namespace() -> None:
    for values in ({}, {"watchAllNamespaces": True}):
        rendered = render(airflow=AIRFLOW, **values)
        (binding,) = [
            item for item in rendered.objects if item["kind"].endswith("Binding") and item["metadata"]["name"].endswith(".airflow")
        ]
        assert binding["subjects"] == [{"kind": "ServiceAccount", **account} for account in AIRFLOW["accounts"]]


def test_airflow_reads_no_logs_where_there_are_none() -> None:
    assert {group for group, _, _ in rights("worker", "default", airflow=AIRFLOW, logs={"enabled": False})} == {"skyoperator.dev"}


@pytest.mark.parametrize("account", [{"name": "worker"}, {"namespace": "airflow"}, {"namespace": "airflow", "name": "a:b"}, "worker"])
def test_an_account_of_airflow_is_a_name_and_a_namespace(account: Any) -> None:
    assert "airflow" in refusal({"airflow": {"accounts": [account]}})


def test_user_roles_can_be_left_out() -> None:
    assert [role for role in render(userRoles={"create": False}).all("ClusterRole") if "aggregate" in str(role)] == []
