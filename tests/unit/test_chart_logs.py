"""What the chart promises about the log process: its Deployment, its doors, and the settings that it reads."""

from __future__ import annotations

from typing import Any

import pytest
from skyoperator.logs.certificates import names_of
from skyoperator.logs.settings import MIB, LogSettings

from tests.unit.chart import NAMESPACE, Rendered, refusal, render
from tests.unit.test_chart import OWN_SERVER, environment

API_SERVICE = "v1alpha1.logs.skyoperator.dev"


def settings(**values: Any) -> LogSettings:
    return LogSettings.from_environment(environment(render(**values).container("-logs")))


class TestProcess:
    def test_it_has_no_power_over_its_node(self) -> None:
        rendered = render()
        pod, container = rendered.pod("-logs"), rendered.container("-logs")
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == rendered.container("-controller")["securityContext"]

    def test_two_never_write_one_volume(self) -> None:
        spec = render().one("Deployment", "-logs")["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert render().one("PersistentVolumeClaim", "-logs")["spec"]["accessModes"] == ["ReadWriteOnce"]

    def test_it_is_the_controllers_image_and_another_module(self) -> None:
        rendered = render(controller={"image": {"repository": "mine", "tag": "7"}})
        assert rendered.container("-logs")["image"] == rendered.container("-controller")["image"] == "mine:7"
        assert rendered.container("-logs")["command"] == ["python", "-m", "skyoperator.logs"]

    def test_it_can_write_where_its_logs_are_and_nowhere_that_lasts_else(self) -> None:
        rendered = render()
        container = rendered.container("-logs")
        writable = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/var/lib/skyoperator/logs": "logs", "/tmp": "tmp"}
        assert str(settings().directory) == "/var/lib/skyoperator/logs"
        volumes = {volume["name"]: volume for volume in rendered.pod("-logs")["volumes"]}
        assert volumes["logs"]["persistentVolumeClaim"] == {"claimName": "skyoperator-logs"}
        assert volumes["tmp"]["emptyDir"]["medium"] == "Memory", "the server's key is there for a moment"

    def test_its_logs_outlive_the_release_unless_told_otherwise(self) -> None:
        assert render().one("PersistentVolumeClaim", "-logs")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert "annotations" not in render(logs={"persistence": {"keep": False}}).one("PersistentVolumeClaim", "-logs")["metadata"]

    def test_a_claim_of_ones_own_is_used(self) -> None:
        rendered = render(logs={"persistence": {"existingClaim": "mine"}})
        assert [claim["metadata"]["name"] for claim in rendered.all("PersistentVolumeClaim")] == ["skyoperator-skypilot"]
        assert {"claimName": "mine"} in [volume.get("persistentVolumeClaim") for volume in rendered.pod("-logs")["volumes"]]

    def test_it_is_probed_where_it_listens(self) -> None:
        container = render().container("-logs")
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"https": settings().https_port, "http": settings().metrics_port}
        for probe in ("livenessProbe", "readinessProbe"):
            assert (container[probe]["httpGet"]["port"], container[probe]["httpGet"]["scheme"]) == ("https", "HTTPS")

    def test_its_metrics_are_scraped_with_the_controllers(self) -> None:
        rendered = render(controller={"metrics": {"serviceMonitor": {"enabled": True}}})
        monitor, service = rendered.one("ServiceMonitor", "-logs"), rendered.one("Service", "-logs")
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


class TestSettings:
    def test_it_reads_what_was_set(self) -> None:
        found = settings(
            watchNamespaces=["ml", "research"],
            logs={
                "retentionDays": 3,
                "maxLogMiB": 8,
                "maxTotalMiB": 2000000,
                "intervalSeconds": 60,
                "maxFollowers": 9,
                "logLevel": "debug",
            },
        )
        assert (found.retention_days, found.interval_seconds, found.max_followers, found.log_level) == (3, 60, 9, "DEBUG")
        assert (found.max_log_bytes, found.max_total_bytes) == (8 * MIB, 2_000_000 * MIB)
        assert (found.namespaces, found.namespace, found.instance) == (("ml", "research"), NAMESPACE, f"{NAMESPACE}/skyoperator")

    def test_it_finds_the_server_and_its_login_as_the_controller_does(self) -> None:
        assert settings().skypilot_endpoint == f"http://skyoperator-skypilot.{NAMESPACE}.svc:46580"
        assert settings().login_secret == "skyoperator-skypilot-login"
        own = settings(skypilot=OWN_SERVER)
        assert (own.skypilot_endpoint, own.login_secret) == ("https://sky.example.com", "")

    @pytest.mark.parametrize(
        "values",
        [
            {"retentionDays": 0},
            {"maxLogMiB": 0},
            {"intervalSeconds": 1},
            {"maxFollowers": 0},
            {"apiService": {"enabled": "yes"}},
            {"retention": 1},
        ],
        ids=str,
    )
    def test_a_word_that_means_nothing_is_refused(self, values: dict[str, Any]) -> None:
        assert "logs" in refusal({"logs": values})


class TestDoors:
    def test_the_service_is_reached_under_a_name_of_the_certificate(self) -> None:
        rendered = render(logs={"clusterDomain": "example.org"})
        service, found = rendered.one("Service", "-logs"), settings(logs={"clusterDomain": "example.org"})
        assert service["metadata"]["name"] == found.service
        assert {port["port"]: port["targetPort"] for port in service["spec"]["ports"]} == {443: "https", 8080: "http"}
        assert f"skyoperator-logs.{NAMESPACE}.svc.example.org" in names_of(found.service, found.namespace, found.cluster_domain)
        labels = rendered.one("Deployment", "-logs")["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert (
            not service["spec"]["selector"].items()
            <= rendered.one("Deployment", "-controller")["spec"]["template"]["metadata"]["labels"].items()
        )

    def test_what_it_keeps_has_a_place_and_no_manifest_touches_it(self) -> None:
        """A `data` here, even an empty one, would take certificate and authority away at each upgrade."""
        rendered, found = render(), settings()
        secret, config_map = rendered.one("Secret", "-tls"), rendered.one("ConfigMap", "-ca")
        assert (secret["metadata"]["name"], config_map["metadata"]["name"]) == (found.certificate_secret, found.authority_config_map)
        assert not {"data", "stringData"} & (set(secret) | set(config_map))

    @pytest.mark.parametrize(
        ("values", "is_open"),
        [
            ({}, False),
            ({"watchAllNamespaces": True}, True),
            ({"logs": {"apiService": {"enabled": True}}}, True),
            ({"watchAllNamespaces": True, "logs": {"apiService": {"enabled": False}}}, False),
            ({"watchAllNamespaces": True, "logs": {"apiService": {"enabled": None}}}, True),
            ({"watchAllNamespaces": True, "logs": {"enabled": False}}, False),
            ({"logs": {"enabled": False, "apiService": {"enabled": True}}}, False),
        ],
        ids=str,
    )
    def test_one_release_of_a_cluster_goes_through_kube_apiserver(self, values: dict[str, Any], *, is_open: bool) -> None:
        rendered = render(**values)
        assert [item["metadata"]["name"] for item in rendered.all("APIService")] == ([API_SERVICE] if is_open else [])
        if values.get("logs", {}).get("enabled", True):
            assert settings(**values).api_service == (API_SERVICE if is_open else "")

    def test_the_api_service_points_to_the_service_and_pins_nothing(self) -> None:
        rendered = render(watchAllNamespaces=True)
        spec = the_api_service(rendered)["spec"]
        assert spec["service"] == {"name": "skyoperator-logs", "namespace": NAMESPACE, "port": 443}
        assert not {"caBundle", "insecureSkipTLSVerify"} & set(spec), "the process sets the one; the other would trust anybody"
        assert (spec["group"], spec["version"]) == ("logs.skyoperator.dev", "v1alpha1")

    def test_kubectl_get_skyclusters_goes_on_to_mean_the_crd(self) -> None:
        """kube-apiserver gives CRDs 1000 (kubernetes 1.34, pkg/controlplane/controller/crdregistration)."""
        assert the_api_service(render(watchAllNamespaces=True))["spec"]["groupPriorityMinimum"] < 1000


def the_api_service(rendered: Rendered) -> dict[str, Any]:
    return rendered.one("APIService")
