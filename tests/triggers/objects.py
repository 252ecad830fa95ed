"""SkyClusters, and what a controller would write of them; how often they are watched and read, as kube-apiserver counts it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient, Configuration, CustomObjectsApi
from kubernetes.config import load_kube_config
from skyoperator_provider.skycluster import GROUP, KIND, PLURAL, VERSION

from tests.e2e.support import kubectl

AT_ONCE = 16
SPEC = {"suspend": True, "task": {"resources": {"infra": "k8s"}, "run": "sleep infinity"}}
LONG_AGO = "2026-01-01T00:00:00Z"
AT_WORK = {
    "phase": "Running",
    "launch": {"attempt": 1, "taskDigest": "t", "clusterDigest": "c", "hasRun": True, "requestedAt": LONG_AGO},
    "job": {"name": "job", "status": "RUNNING", "log": "/apis/logs.skyoperator.dev/v1alpha1"},
}

Json = dict[str, Any]


@dataclass
class Objects:
    """The objects, by their numbers."""

    namespace: str
    api: CustomObjectsApi
    bodies: list[Json]

    @classmethod
    def created(cls, namespace: str, count: int) -> Objects:
        configuration = Configuration()
        configuration.connection_pool_maxsize = AT_ONCE
        load_kube_config(os.environ["KUBECONFIG"], client_configuration=configuration)
        api = CustomObjectsApi(ApiClient(configuration))
        common = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "spec": SPEC}
        bodies = [{**common, "metadata": {"name": f"n{number}"}} for number in range(count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = pool.map(lambda body: api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body), bodies)
            return cls(namespace, api, list(made))

    def say(self, conditions: Mapping[int, Json]) -> None:
        """Write the only condition of each of these."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for number, body in zip(conditions, pool.map(self._say, conditions, conditions.values()), strict=True):
                self.bodies[number] = body

    def _say(self, number: int, condition: Json) -> Json:
        body = self.bodies[number]
        words = {"observedGeneration": body["metadata"]["generation"], "lastTransitionTime": LONG_AGO, **condition}
        body = {**body, "status": {**AT_WORK, "conditions": [words]}}
        where = (GROUP, VERSION, self.namespace, PLURAL, body["metadata"]["name"])
        written: Json = self.api.replace_namespaced_custom_object_status(*where, body)
        return written

    def names(self) -> set[str]:
        """Return those that are there."""
        listed = self.api.list_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL)
        return {body["metadata"]["name"] for body in listed["items"]}


def watches() -> int:
    """Return how many watches of SkyClusters are open, of one namespace each: whose they are is not counted."""
    return _counted("apiserver_longrunning_requests", scope="namespace", verb="WATCH")


def reads() -> int:
    """Return how often a SkyCluster was read since kube-apiserver began."""
    return _counted("apiserver_request_total", scope="resource", verb="GET")


def _counted(metric: str, **labels: str) -> int:
    wanted = [f'{label}="{value}"' for label, value in {"group": GROUP, "resource": PLURAL, **labels}.items()]
    lines = kubectl("get", "--raw", "/metrics").splitlines()
    found = [line for line in lines if line.startswith(metric + "{") and all(word in line for word in wanted)]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)
