"""The cluster that the kubeconfig means, and the SkyClusters in it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

import yaml
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_incluster_config, load_kube_config
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from skyoperator.api.v1alpha1 import GROUP, PLURAL, VERSION
from skyoperator.cli.errors import CliError, StatusError
from skyoperator.cli.http import MERGE_PATCH, Answer, Http, Json, Query, Right
from skyoperator.cli.target import Target

IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAGE: Final = "500"


@dataclass(frozen=True, slots=True)
class Kube:
    """The Kubernetes API, and the namespace that is meant where none is named."""

    http: Http
    namespace: str
    target: Target

    def get(self, name: str) -> Json:
        """Return the SkyCluster. Raises CliError; where there is none of that name it tells which ones have a near name."""
        try:
            return self.http.request("GET", self._path(name), right=self._right("get")).json()
        except StatusError as error:
            raise self._explained(error, name) from error

    def list(self, *, everywhere: bool = False) -> list[Json]:
        """Return the SkyClusters of the namespace, or of all. Raises CliError."""
        path = f"/apis/{GROUP}/{VERSION}/{PLURAL}" if everywhere else self._path()
        right = Right("list", PLURAL, GROUP, None if everywhere else self.namespace)
        items: list[Json] = []
        query: list[tuple[str, str]] = [("limit", PAGE)]
        while True:
            try:
                page = self.http.request("GET", path, query, right=right).json()
            except StatusError as error:
                raise self._explained(error) from error
            items += page.get("items", [])
            if not (more := page.get("metadata", {}).get("continue")):
                return items
            query = [("limit", PAGE), ("continue", more)]

    def list_one(self, name: str) -> tuple[Json | None, str]:
        """Return the SkyCluster, or None, and the version to watch from. Raises CliError."""
        try:
            found = self.http.request("GET", self._path(), _only(name), right=self._right("list")).json()
        except StatusError as error:
            raise self._explained(error) from error
        return next(iter(found.get("items", [])), None), found.get("metadata", {}).get("resourceVersion", "")

    def watch(self, name: str, version: str, seconds: float) -> Answer:
        """Return the events of one SkyCluster, a JSON object a line, for at most so long. Raises CliError."""
        window = [("watch", "true"), ("resourceVersion", version), ("timeoutSeconds", str(int(seconds) + 1))]
        return self.http.request("GET", self._path(), [*_only(name), *window], right=self._right("watch"), read_seconds=seconds)

    def delete(self, name: str, uid: str) -> None:
        """Delete the SkyCluster, if it is still the one of that uid. Raises CliError."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            self.http.request("DELETE", self._path(name), body=body, right=self._right("delete")).read()
        except StatusError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise

    def patch(self, name: str, patch: Json) -> None:
        """Merge that into the SkyCluster. Raises CliError."""
        self.http.request("PATCH", self._path(name), body=patch, content_type=MERGE_PATCH, right=self._right("patch")).read()

    def token(self) -> str | None:
        """Return the bearer token of the kubeconfig's user; None if the user has other credentials."""
        words = self.http.client.configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        scheme, _, token = words.partition(" ")
        return token if scheme.lower() == "bearer" and token else None

    def _path(self, name: str | None = None) -> str:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{quote(self.namespace, safe='')}/{PLURAL}"
        return path if name is None else f"{path}/{quote(name, safe='')}"

    def _right(self, verb: str) -> Right:
        return Right(verb, PLURAL, GROUP, self.namespace)

    def _explained(self, error: StatusError, name: str | None = None) -> CliError:
        """Return what a person needs to know instead of a bare 404."""
        if error.code != HTTPStatus.NOT_FOUND:
            return error
        if name is None or not error.names_object:
            return CliError(
                f"This cluster does not know {PLURAL}.{GROUP}: skyoperator is not installed, or this is not the context you mean."
            )
        words = f"There is no SkyCluster {name} in namespace {self.namespace}.{self._near(name)}"
        return StatusError(words, error.code, names_object=True)

    def _near(self, name: str) -> str:
        """Return which SkyClusters might have been meant; nothing if they can't be listed."""
        try:
            names = [item["metadata"]["name"] for item in self.list()]
        except CliError:
            return ""
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        return f" Did you mean {', '.join(near)}?" if near else " Is it in another one (-n)?"


def _only(name: str) -> Query:
    return [("fieldSelector", f"metadata.name={name}")]


@contextmanager
def connected(target: Target) -> Iterator[Kube]:
    """Yield the cluster. Raises CliError if there is no kubeconfig, or no such context in it."""
    configuration = Configuration()
    configuration.retries = False
    configuration.keep_alive = True
    namespace = _load(target, configuration)
    with ApiClient(configuration) as client:
        yield Kube(Http(client), target.namespace or namespace, target)


def _load(target: Target, configuration: Configuration) -> str:
    """Fill in who we are and where the API is, and return the namespace to assume. As kubectl does: a pod's own account comes last.

    The client raises whatever a file that is no kubeconfig provokes in it.
    """
    paths = target.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    there = [path for path in paths.split(os.pathsep) if path and Path(path).expanduser().exists()]
    if not there and target.kubeconfig is None and IN_CLUSTER_NAMESPACE.exists():
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return IN_CLUSTER_NAMESPACE.read_text().strip()
    if not there:
        raise CliError(f"There is no kubeconfig at {paths}. Name one with --kubeconfig or KUBECONFIG.")
    try:
        load_kube_config(config_file=paths, context=target.context, client_configuration=configuration)  # type: ignore[no-untyped-call]
        contexts, current = list_kube_config_contexts(config_file=paths)  # type: ignore[no-untyped-call]
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CliError(f"The kubeconfig at {paths} can't be used: {error}") from error
    chosen = next((context for context in contexts if context["name"] == target.context), current)
    return str(chosen["context"].get("namespace") or "default")
