"""Renders the Helm chart as `helm template` does, for the tests of the chart. Needs no cluster and no network."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "skyoperator"
TOOLS = Path.home() / ".cache" / "skyoperator" / "bin"
RELEASE, NAMESPACE = "skyoperator", "sky-system"

Manifest = dict[str, Any]

BUILT_IN: dict[tuple[str, str], Manifest] = {
    ("ClusterRole", "system:auth-delegator"): {
        "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        ]
    },
    ("Role", "extension-apiserver-authentication-reader"): {
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": ["extension-apiserver-authentication"],
                "verbs": ["get", "list", "watch"],
            }
        ]
    },
}
"""Kubernetes' own roles that the chart binds to (kubernetes 1.34, plugin/pkg/auth/authorizer/rbac/bootstrappolicy)."""


@cache
def helm() -> str:
    """Path of the helm binary; fails the test with what to do if there is none."""
    found = shutil.which("helm", path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    return found or pytest.fail(f"helm is neither in PATH nor in {TOOLS}. Run `make tools`.")


def run_helm(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart with values (nested, as in values.yaml) from stdin."""
    command = [helm(), *arguments, str(CHART), "--namespace", NAMESPACE, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)


def refusal(values: Mapping[str, Any]) -> str:
    """What helm says about values that it must not render."""
    result = run_helm("template", RELEASE, values=values)
    assert result.returncode != 0, "helm rendered values that it should refuse"
    return result.stderr


class Rendered:
    """The objects of one rendering."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def all(self, kind: str) -> list[Manifest]:
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Manifest:
        """The only object of that kind whose name ends so."""
        (found,) = [item for item in self.all(kind) if item["metadata"]["name"].endswith(name)]
        return found

    def pod(self, name: str) -> Manifest:
        """The pod spec of the Deployment whose name ends so."""
        spec: Manifest = self.one("Deployment", name)["spec"]["template"]["spec"]
        return spec

    def container(self, name: str) -> Manifest:
        (container,) = self.pod(name)["containers"]
        return dict(container)

    def rules(self, account: str) -> Iterator[tuple[str, Manifest]]:
        """(namespace, rule) of everything the service account of that full name may do; "" is cluster-wide."""
        for binding in self.all("RoleBinding") + self.all("ClusterRoleBinding"):
            if any(subject["name"] == account for subject in binding["subjects"]):
                namespace = "" if binding["kind"] == "ClusterRoleBinding" else self.namespace(binding)
                for rule in self._role(binding)["rules"]:
                    yield namespace, rule

    @staticmethod
    def namespace(item: Manifest) -> str:
        return str(item["metadata"].get("namespace", NAMESPACE))

    def _role(self, binding: Manifest) -> Manifest:
        reference = binding["roleRef"]
        if built_in := BUILT_IN.get((reference["kind"], reference["name"])):
            return built_in
        (role,) = [
            role
            for role in self.all(reference["kind"])
            if role["metadata"]["name"] == reference["name"]
            and (role["kind"] == "ClusterRole" or self.namespace(role) == self.namespace(binding))
        ]
        return role


def render(**values: Any) -> Rendered:
    """Render the chart; values are the top keys of values.yaml."""
    return _render(json.dumps(values))


@cache
def _render(values: str) -> Rendered:
    result = run_helm("template", RELEASE, values=json.loads(values))
    assert result.returncode == 0, result.stderr
    return Rendered([item for item in yaml.safe_load_all(result.stdout) if item])
