"""Where logs are read: through the Kubernetes API, or, where no APIService leads there, at the log service itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration

from skyoperator.api.logs import LOGS_GROUP, LOGS_VERSION
from skyoperator.api.v1alpha1 import PLURAL
from skyoperator.cli import forward
from skyoperator.cli.errors import CliError, StatusError
from skyoperator.cli.forward import Service
from skyoperator.cli.http import READ_SECONDS, Answer, Http, Json, Query, Right
from skyoperator.cli.kube import Kube

LOG_RESOURCE: Final = f"{PLURAL}/log"
SELECTOR: Final = "app.kubernetes.io/part-of=skyoperator,app.kubernetes.io/component=logs"
USUAL_NAMESPACE: Final = "skyoperator"
CA_KEY: Final = "ca.crt"
NOT_THERE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE})
"""Answers to the discovery of the group that leave only the other door: nobody serves it, or what serves it is not reached."""


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """What the command line says about the way to the log service."""

    release_namespace: str | None = None
    token: str | None = None
    ca_file: str | None = None


class Door(Protocol):
    """Answers about one SkyCluster's logs."""

    def request(self, query: Query, read_seconds: float = READ_SECONDS) -> Answer:
        """Return the answer. Raises StatusError, DroppedError."""

    def renew(self) -> None:
        """Make the way anew, after it broke. Raises DroppedError."""


@dataclass(frozen=True, slots=True)
class AggregatedDoor:
    """Through the Kubernetes API, with whatever credentials it takes."""

    http: Http
    path: str
    right: Right

    def request(self, query: Query, read_seconds: float = READ_SECONDS) -> Answer:
        """Return the answer. Raises StatusError, DroppedError."""
        return self.http.request("GET", self.path, query, right=self.right, read_seconds=read_seconds)

    def renew(self) -> None:
        """Do nothing: each request finds its way."""


@dataclass(slots=True)
class ForwardedDoor:
    """At the log service itself, through a forwarded port."""

    forwarded: Callable[[], AbstractContextManager[Http]]
    path: str
    right: Right
    _stack: ExitStack = field(default_factory=ExitStack)
    _http: Http | None = None

    def request(self, query: Query, read_seconds: float = READ_SECONDS) -> Answer:
        """Return the answer. Raises StatusError, DroppedError."""
        if self._http is None:
            self._http = self._stack.enter_context(self.forwarded())
        return self._http.request("GET", self.path, query, right=self.right, read_seconds=read_seconds)

    def renew(self) -> None:
        """End the forwarding; the next request begins another."""
        self._http = None
        self._stack.close()


@contextmanager
def opened(kube: Kube, name: str, options: DoorOptions) -> Iterator[Door]:
    """Yield the door to the logs of the SkyCluster. Raises CliError."""
    path = f"/apis/{LOGS_GROUP}/{LOGS_VERSION}/namespaces/{quote(kube.namespace, safe='')}/{PLURAL}/{quote(name, safe='')}/log"
    right = Right("get", LOG_RESOURCE, LOGS_GROUP, kube.namespace)
    if is_aggregated(kube.http):
        yield AggregatedDoor(kube.http, path, right)
        return
    token = _token(kube, options)
    service = find_service(kube, options.release_namespace)
    authority = _authority(kube, service, options)
    door = ForwardedDoor(lambda: _forwarded(kube, service, token, authority), path, right)
    try:
        yield door
    finally:
        door.renew()


def is_aggregated(http: Http) -> bool:
    """Return whether the Kubernetes API serves logs. Raises CliError."""
    try:
        http.request("GET", f"/apis/{LOGS_GROUP}/{LOGS_VERSION}").read()
    except StatusError as error:
        if error.code in NOT_THERE:
            return False
        raise
    return True


def find_service(kube: Kube, release_namespace: str | None) -> Service:
    """Return the log Service. Raises CliError if none is seen, or more than one."""
    found = _services(kube, release_namespace)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(service.namespace for service in found)
        raise CliError(f"There are several log services, in the namespaces {names}. Say whose with --release-namespace.")
    where = f"namespace {release_namespace}" if release_namespace else "a namespace where you may list services"
    raise CliError(
        f"No log service was found: the Kubernetes API does not serve {LOGS_GROUP}, and {where} has no Service with the labels {SELECTOR}. "
        "Is skyoperator installed with logs? Name its namespace with --release-namespace."
    )


def _services(kube: Kube, release_namespace: str | None) -> list[Service]:
    """Look in the namespace that is named; else in all, or, without that right, in the likely ones."""
    if release_namespace is not None:
        return _services_at(kube, release_namespace)
    try:
        return _services_at(kube, None)
    except StatusError as error:
        if error.code != HTTPStatus.FORBIDDEN:
            raise
    found: list[Service] = []
    for namespace in dict.fromkeys((USUAL_NAMESPACE, kube.namespace)):
        try:
            found += _services_at(kube, namespace)
        except StatusError as error:
            if error.code != HTTPStatus.FORBIDDEN:
                raise
    return found


def _services_at(kube: Kube, namespace: str | None) -> list[Service]:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/services" if namespace else "/api/v1/services"
    listed = kube.http.request("GET", path, [("labelSelector", SELECTOR)], right=Right("list", "services", "", namespace)).json()
    return [_service(item) for item in listed.get("items", [])]


def _service(item: Json) -> Service:
    """Return the Service; its port is the one called https, or else the first."""
    ports = item["spec"]["ports"]
    port = next((port for port in ports if port.get("name") == "https"), ports[0])
    return Service(item["metadata"]["namespace"], item["metadata"]["name"], int(port["port"]))


def _token(kube: Kube, options: DoorOptions) -> Callable[[], str]:
    """Return where the token is had: an exec plugin's expires, so it is asked for anew. Raises CliError if there is none."""
    if options.token is None and kube.token() is None:
        raise CliError(
            "The log service wants a bearer token, and the kubeconfig's user has none (but, say, a client certificate). "
            f"Give one with --token, for example of a service account that may get {LOG_RESOURCE} in group {LOGS_GROUP}: "
            f'--token "$(kubectl create token ACCOUNT -n {kube.namespace})".'
        )
    return lambda: options.token or kube.token() or ""


def _authority(kube: Kube, service: Service, options: DoorOptions) -> str:
    """Return the certificate authority of the log service, as PEM. Raises CliError if it can't be had: nothing is read unverified."""
    if options.ca_file is not None:
        try:
            return Path(options.ca_file).read_text()
        except OSError as error:
            raise CliError(f"The certificate authority can't be read: {error}") from error
    name = f"{service.name}-ca"
    path = f"/api/v1/namespaces/{quote(service.namespace, safe='')}/configmaps/{quote(name, safe='')}"
    try:
        pem = kube.http.request("GET", path, right=Right("get", "configmaps", "", service.namespace)).json().get("data", {}).get(CA_KEY)
    except StatusError as error:
        raise CliError(f"{error} {_how_to_get(service, name)}") from error
    if not pem:
        raise CliError(
            f"ConfigMap {service.namespace}/{name} has no {CA_KEY} yet. Is the log service running? {_how_to_get(service, name)}"
        )
    return str(pem)


def _how_to_get(service: Service, name: str) -> str:
    """Return what to do about a certificate authority that can't be read."""
    return (
        "Without it the log service can't be told from an impostor. Ask somebody who may read it for the output of "
        f"kubectl get configmap {name} -n {service.namespace} -o jsonpath='{{.data.ca\\.crt}}' in a file, and give that with --ca-file."
    )


@contextmanager
def _forwarded(kube: Kube, service: Service, token: Callable[[], str], authority: str) -> Iterator[Http]:
    """Yield the log service, verified. Its certificate is for localhost too, where the forwarded port is."""
    with forward.port_forward(service, kube.target) as port:
        configuration = Configuration(host=f"https://127.0.0.1:{port}", ca_cert_data=authority)
        configuration.tls_server_name = "localhost"
        configuration.retries = False
        configuration.keep_alive = True
        configuration.proxy = None
        configuration.api_key = {"BearerToken": f"Bearer {token()}"}
        configuration.refresh_api_key_hook = lambda fresh: fresh.api_key.update(BearerToken=f"Bearer {token()}")  # type: ignore[assignment]
        with ApiClient(configuration) as client:
            yield Http(client)
