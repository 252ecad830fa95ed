"""What the chart promises about its Deployments, its CRD and its values."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from skyoperator.task import Policy, read_policy
from skyoperator.task.policy import PASSED_ON_REQUEST

from tests.unit.chart import CHART, NAMESPACE, refusal, render, run_helm

CRD_NAME = "skyclusters.skyoperator.dev.yaml"
OWN_SERVER = {"enabled": False, "endpoint": "https://sky.example.com", "credentialsSecret": "sky-login"}
OFFLINE = {"enabled": True, "nodeImage": "skypilot-node:0.14.1"}


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def server_config(**values: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(render(**values).one("ConfigMap", "-skypilot")["data"]["config.yaml"])
    return config


@pytest.mark.parametrize(
    "values",
    [{}, {"watchAllNamespaces": True}, {"skypilot": OWN_SERVER}, {"skypilot": {"offline": OFFLINE}}, {"logs": {"enabled": False}}],
    ids=["defaults", "all namespaces", "own server", "offline", "no logs"],
)
def test_helm_lints_without_a_warning(values: dict[str, Any]) -> None:
    result = run_helm("lint", "--strict", values=values)
    assert result.returncode == 0, result.stdout


def test_the_schema_and_the_values_know_the_same_keys() -> None:
    """helm refuses a value that the schema does not know; this finds the opposite, a key of the schema without a default."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(keys_without_default(schema, values)) == {"global"}


def keys_without_default(schema: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    for key, child in schema.get("properties", {}).items():
        if key not in values:
            yield key
        elif isinstance(values[key], dict):
            yield from keys_without_default(child, values[key])


def test_a_misspelt_value_is_refused() -> None:
    assert "'grcp' not allowed" in refusal({"skypilot": {"grcp": True}})


class TestCRD:
    def test_the_chart_carries_the_generated_crd(self) -> None:
        generated = CHART.parents[2] / "crds" / CRD_NAME
        copied = CHART / "files" / CRD_NAME
        assert copied.read_bytes() == generated.read_bytes(), "run `make generate`"

    def test_rendering_changes_nothing_but_labels_and_annotations(self) -> None:
        rendered = render().one("CustomResourceDefinition")
        generated = yaml.safe_load((CHART / "files" / CRD_NAME).read_text())
        assert rendered["spec"] == generated["spec"]
        assert rendered["metadata"]["name"] == generated["metadata"]["name"]

    def test_it_outlives_the_release(self) -> None:
        assert render().one("CustomResourceDefinition")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"

    def test_it_can_be_left_to_somebody_else(self) -> None:
        assert render(crds={"install": False}).all("CustomResourceDefinition") == []


class TestController:
    def test_it_has_no_power_over_its_node(self) -> None:
        rendered = render()
        pod, container = rendered.pod("-controller"), rendered.container("-controller")
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_there_is_never_a_second_one(self) -> None:
        spec = render().one("Deployment", "-controller")["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert "at '/controller/replicas'" in refusal({"controller": {"replicas": 2}})

    def test_the_credential_is_a_file_and_nowhere_else(self) -> None:
        rendered = render()
        password = rendered.one("Secret", "-credentials")["data"]["password"]
        assert len(password) > 40
        for item in rendered.objects:
            assert item["kind"] == "Secret" or password not in yaml.safe_dump(item)
        for name in ("-controller", "-skypilot"):
            container = rendered.container(name)
            assert not any("secretKeyRef" in str(variable) for variable in container["env"])
            assert "envFrom" not in container

    def test_its_own_login_has_a_place_and_no_manifest_touches_it(self) -> None:
        """A `data` here, even an empty one, would take the login away at each upgrade."""
        rendered = render()
        name = environment(rendered.container("-controller"))["SKYOPERATOR_LOGIN_SECRET"]
        secret = rendered.one("Secret", "-login")
        assert secret["metadata"]["name"] == name
        assert not {"data", "stringData"} & set(secret)

    def test_it_finds_the_server_of_the_release(self) -> None:
        rendered = render()
        service = rendered.one("Service", "-skypilot")
        endpoint = f"http://{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
        assert environment(rendered.container("-controller"))["SKYOPERATOR_SKYPILOT_ENDPOINT"] == endpoint
        labels = rendered.one("Deployment", "-skypilot")["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()

    def test_it_is_told_where_it_works(self) -> None:
        variables = environment(render(watchNamespaces=["ml", "research"]).container("-controller"))
        assert variables["SKYOPERATOR_NAMESPACES"] == "ml,research"
        assert variables["SKYOPERATOR_INSTANCE"] == f"{NAMESPACE}/skyoperator"
        assert variables["SKYOPERATOR_LEASE_NAMESPACE"] == NAMESPACE
        assert variables["SKYOPERATOR_MAX_IN_FLIGHT_LAUNCHES"] == "8"
        assert variables["SKYOPERATOR_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert environment(render(watchAllNamespaces=True).container("-controller"))["SKYOPERATOR_NAMESPACES"] == ""

    def test_its_image_follows_the_charts_version(self) -> None:
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        assert render().container("-controller")["image"] == f"skyoperator:{version}"

    def test_watching_nothing_is_refused(self) -> None:
        assert "watchNamespaces is empty" in refusal({"watchNamespaces": []})


class TestPolicy:
    def test_the_controller_reads_what_was_set(self) -> None:
        values = {"allowTaskKeys": ["config"], "allowedInfra": ["k8s", "aws/us-east-1"], "allowedBuckets": ["s3://datasets"]}
        policy = read_policy(json.loads(environment(render(policy=values).container("-controller"))["SKYOPERATOR_POLICY"]))
        assert policy == Policy(("s3://datasets",), (), ("k8s", "aws/us-east-1"), ("config",), 60)

    def test_the_defaults_are_the_controllers_own(self) -> None:
        assert read_policy(json.loads(environment(render().container("-controller"))["SKYOPERATOR_POLICY"])) == Policy()

    @pytest.mark.parametrize(
        "values",
        [
            {"allowTaskKeys": ["secrets"]},
            {"allowedInfra": ["aws/*/us-east-1a"]},
            {"allowedBuckets": ["datasets"]},
            {"allowedVolumes": ["a b"]},
            {"defaultAutostopMinutes": 0},
            {"allowedBucket": []},
        ],
        ids=str,
    )
    def test_a_word_that_means_nothing_is_refused_before_anything_is_installed(self, values: dict[str, Any]) -> None:
        assert next(iter(values)) in refusal({"policy": values})

    def test_every_key_that_the_controller_can_let_through_can_be_named(self) -> None:
        schema = json.loads((CHART / "values.schema.json").read_text())
        assert schema["properties"]["policy"]["properties"]["allowTaskKeys"]["items"]["enum"] == list(PASSED_ON_REQUEST)


class TestSkyPilot:
    def test_two_servers_never_share_the_state(self) -> None:
        spec = render().one("Deployment", "-skypilot")["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert render().one("PersistentVolumeClaim", "-skypilot")["spec"]["accessModes"] == ["ReadWriteOnce"]

    def test_it_asks_for_a_password(self) -> None:
        variables = environment(render().container("-skypilot"))
        assert variables["ENABLE_BASIC_AUTH"] == variables["ENABLE_SERVICE_ACCOUNTS"] == "true"

    def test_no_credential_reaches_a_cluster(self) -> None:
        config = server_config()
        clouds = {"aws", "azure", "gcp", "kubernetes", "nebius", "oci", "slurm", "ssh", "vast"}
        assert {cloud for cloud in clouds if config[cloud]["remote_identity"] == "NO_UPLOAD"} == clouds

    def test_pods_act_as_the_account_of_the_workloads(self) -> None:
        account = render().one("ServiceAccount", "-workloads")["metadata"]["name"]
        assert server_config()["kubernetes"]["context_configs"]["in-cluster"] == {"remote_identity": account}

    def test_another_identity_is_given_cloud_by_cloud(self) -> None:
        config = server_config(skypilot={"remoteIdentity": {"aws": [{"train-*": "trainer"}], "gcp": "SERVICE_ACCOUNT"}})
        assert config["aws"]["remote_identity"] == [{"train-*": "trainer"}]
        assert config["gcp"]["remote_identity"] == "SERVICE_ACCOUNT"
        assert config["azure"]["remote_identity"] == "NO_UPLOAD"
        assert "remoteIdentity.gcp" in refusal({"skypilot": {"remoteIdentity": {"gcp": "my-account"}}}).replace("/", ".")

    def test_no_job_controller_runs_in_the_server(self) -> None:
        assert server_config()["jobs"] == {"controller": {"consolidation_mode": False}}

    def test_clusters_go_to_their_own_namespace(self) -> None:
        assert server_config()["kubernetes"]["namespace"] == f"{NAMESPACE}-workloads"
        assert server_config(workloads={"namespace": "gpu"})["kubernetes"]["namespace"] == "gpu"
        assert 'is "sky-system", the release namespace' in refusal({"workloads": {"namespace": NAMESPACE}})

    def test_a_pod_waits_for_a_node_as_long_as_the_value_says(self) -> None:
        assert server_config()["kubernetes"]["provision_timeout"] == 600
        assert server_config(skypilot={"provisionTimeoutSeconds": 20})["kubernetes"]["provision_timeout"] == 20

    def test_the_installers_config_wins(self) -> None:
        config = server_config(skypilot={"config": {"kubernetes": {"provision_timeout": -1}, "gcp": {"project_id": "p"}}})
        assert config["kubernetes"]["provision_timeout"] == -1
        assert config["gcp"] == {"project_id": "p", "remote_identity": "NO_UPLOAD"}
        assert config["kubernetes"]["namespace"] == f"{NAMESPACE}-workloads"

    def test_a_changed_config_restarts_it(self) -> None:
        def marks(**values: Any) -> Any:
            return render(**values).one("Deployment", "-skypilot")["spec"]["template"]["metadata"]["annotations"]

        assert marks() != marks(skypilot={"provisionTimeoutSeconds": 60})

    def test_without_autodown_a_cluster_gets_no_token(self) -> None:
        def pod_spec(**values: Any) -> Any:
            return server_config(**values)["kubernetes"]["pod_config"]["spec"]

        assert pod_spec(workloads={"autodown": False})["automountServiceAccountToken"] is False
        assert "automountServiceAccountToken" not in pod_spec()

    def test_offline_it_knows_images_and_accelerators_without_a_download(self) -> None:
        rendered = render(skypilot={"offline": OFFLINE})
        data = rendered.one("ConfigMap", "-skypilot")["data"]
        assert data["images.csv"].splitlines()[1:] == [
            f"skypilot:custom-{kind}-ubuntu-2204-v1,,ubuntu,22.04,skypilot-node:0.14.1,20260101" for kind in ("cpu", "gpu")
        ]
        assert "H100,\"['Kubernetes']\"" in data["accelerators.csv"].splitlines()
        (volume,) = [volume for volume in rendered.pod("-skypilot")["volumes"] if volume["name"] == "seed"]
        assert {item["key"] for item in volume["configMap"]["items"]} == set(data) - {"start_server.py"}

    def test_offline_needs_an_image(self) -> None:
        assert "skypilot.offline.nodeImage is required" in refusal({"skypilot": {"offline": {"enabled": True}}})

    def test_it_gets_time_to_drain(self) -> None:
        rendered = render(skypilot={"terminationGracePeriodSeconds": 120})
        assert rendered.pod("-skypilot")["terminationGracePeriodSeconds"] == 120
        assert environment(rendered.container("-skypilot"))["SKYPILOT_GRACE_PERIOD_SECONDS"] == "90"

    def test_its_state_outlives_the_release(self) -> None:
        assert render().one("PersistentVolumeClaim", "-skypilot")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}

    def test_a_claim_of_ones_own_is_used(self) -> None:
        rendered = render(skypilot={"persistence": {"existingClaim": "mine"}})
        assert [claim["metadata"]["name"] for claim in rendered.all("PersistentVolumeClaim")] == ["skyoperator-logs"]
        assert {"claimName": "mine"} in [volume.get("persistentVolumeClaim") for volume in rendered.pod("-skypilot")["volumes"]]

    def test_a_password_of_ones_own_is_used(self) -> None:
        rendered = render(skypilot={"auth": {"existingSecret": "mine"}})
        assert [secret["metadata"]["name"] for secret in rendered.all("Secret")] == ["skyoperator-logs-tls", "skyoperator-skypilot-login"]
        for name in ("-controller", "-skypilot"):
            secrets = [volume["secret"]["secretName"] for volume in rendered.pod(name)["volumes"] if "secret" in volume]
            assert secrets == ["mine"]


class TestAServerThatRunsAlready:
    def test_nothing_of_ours_is_installed_for_it(self) -> None:
        rendered = render(skypilot=OWN_SERVER)
        names = {item["metadata"]["name"] for item in rendered.objects}
        assert not [name for name in names if "skypilot" in name or "workloads" in name]
        assert rendered.all("Namespace") == []

    def test_the_controller_is_pointed_at_it(self) -> None:
        rendered = render(skypilot=OWN_SERVER)
        assert environment(rendered.container("-controller"))["SKYOPERATOR_SKYPILOT_ENDPOINT"] == "https://sky.example.com"
        assert rendered.pod("-controller")["volumes"][0]["secret"]["secretName"] == "sky-login"
        assert "SKYOPERATOR_LOGIN_SECRET" not in environment(rendered.container("-controller")), "it makes none there"

    @pytest.mark.parametrize("missing", ["endpoint", "credentialsSecret"])
    def test_what_is_missing_is_named(self, missing: str) -> None:
        assert f"skypilot.{missing} is required" in refusal({"skypilot": {**OWN_SERVER, missing: ""}})
