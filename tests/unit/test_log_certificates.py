"""The server's certificate: renewed in time and under way, by an authority that clients know already, agreed on by two replicas."""

from __future__ import annotations

import asyncio
import copy
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import aiohttp
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi
from kubernetes.aio.client.exceptions import ApiException
from skyoperator.kube import Json, KubeError
from skyoperator.logs.certificate_keeper import BundleApiService, BundleConfigMap, CertificateKeeper, CertificateSecret
from skyoperator.logs.certificates import Identity, Lifetimes, due_at, names_of, renewed
from skyoperator.logs.types import State
from skyoperator.logs.web.tls import Contexts

from tests.unit.log_server import LOG, NAMES, SERVER, MemoryLog, MemoryLogs, client_context, running, server_contexts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIMES = Lifetimes(authority=timedelta(days=90), certificate=timedelta(days=30))
NAME = "v1alpha1.logs.skyoperator.dev"
SECRET, CONFIG_MAP = "/api/v1/namespaces/sky/secrets/tls", "/api/v1/namespaces/sky/configmaps/ca"


def at(current: Identity | None, days: float, names: tuple[str, ...] = NAMES) -> Identity:
    return renewed(current, NOW + timedelta(days=days), names=names, lifetimes=LIFETIMES)


def leaf(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate)


def authorities(identity: Identity) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(identity.bundle)


def signer_of(identity: Identity, bundle: bytes) -> x509.Certificate | None:
    """Who of a bundle signed the certificate."""
    for authority in x509.load_pem_x509_certificates(bundle):
        if authority.subject == leaf(identity).issuer:
            leaf(identity).verify_directly_issued_by(authority)
            return authority
    return None


class TestRenewal:
    def test_nothing_is_made_anew_before_its_time(self) -> None:
        first = at(None, 0)
        assert at(first, 19.9) is first

    def test_a_certificate_is_renewed_with_a_third_of_its_life_left(self) -> None:
        first = at(None, 0)
        second = at(first, 20)
        assert second.bundle == first.bundle
        assert leaf(second).not_valid_after_utc == NOW + timedelta(days=50)
        assert due_at(first, LIFETIMES) == NOW + timedelta(days=20)

    def test_a_new_authority_counts_before_it_signs_what_is_shown(self) -> None:
        """Who holds the bundle of before must be able to verify until he has the new one."""
        first = at(None, 59)
        before = at(first, 59 + 50)
        both = at(before, 59 + 60)
        assert len(authorities(both)) == 2
        assert both.certificate == before.certificate
        assert signer_of(both, first.bundle) is not None
        after = at(both, 59 + 71)
        assert signer_of(after, first.bundle) is None
        assert signer_of(after, both.bundle) is not None

    def test_an_authority_that_has_run_out_counts_no_more(self) -> None:
        first = at(None, 0)
        both = at(first, 61)
        assert len(authorities(at(both, 89))) == 2
        last = at(at(both, 89), 122)
        assert all(authority.not_valid_after_utc > NOW + timedelta(days=122) for authority in authorities(last))

    @given(st.lists(st.floats(min_value=0.1, max_value=4.9), min_size=1, max_size=40))
    def test_whenever_it_is_looked_at_what_is_shown_can_be_verified_by_the_bundle_of_the_look_before(self, steps: list[float]) -> None:
        days, identity = 0.0, at(None, 0)
        for step in steps:
            days += step
            bundle, identity = identity.bundle, at(identity, days)
            assert leaf(identity).not_valid_after_utc > NOW + timedelta(days=days)
            signer = signer_of(identity, bundle)
            assert signer is not None
            assert signer.not_valid_after_utc >= leaf(identity).not_valid_after_utc

    @pytest.mark.parametrize("days", [61, 85, 95, 1000])
    def test_after_a_long_pause_all_is_good_again_at_once(self, days: float) -> None:
        identity = at(at(None, 0), days)
        assert leaf(identity).not_valid_after_utc > NOW + timedelta(days=days)
        assert signer_of(identity, identity.bundle) is not None
        assert at(identity, days) is identity

    def test_other_names_make_another_certificate_by_the_same_authority(self) -> None:
        first = at(None, 0)
        second = at(first, 1, names_of("other", "sky", "cluster.local"))
        assert second.bundle == first.bundle
        assert second.certificate != first.certificate

    def test_its_names_are_those_of_the_service_and_of_a_port_forward(self) -> None:
        found = leaf(at(None, 0)).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(found.get_values_for_type(x509.DNSName)) == {"logs.sky.svc", "logs.sky.svc.cluster.local", "logs.sky", "localhost"}
        assert {str(address) for address in found.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}

    def test_its_authority_signs_no_other_authority(self) -> None:
        (authority,) = authorities(at(None, 0))
        assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
        assert leaf(at(None, 0)).extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False

    def test_a_certificate_that_would_outlive_its_authority_is_refused(self) -> None:
        with pytest.raises(ValueError, match="outlive its authority"):
            Lifetimes(authority=timedelta(days=30), certificate=timedelta(days=11))

    @pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
    @pytest.mark.parametrize("value", [None, b"", b"garbage", "another's"])
    def test_what_can_not_be_used_is_not(self, key: str, value: Any) -> None:
        data: dict[str, bytes] = at(None, 0).data()
        data[key] = at(None, 1).data()[key] if value == "another's" else value or b""
        assert Identity.from_data(data) is None
        assert Identity.from_data(at(None, 0).data()) is not None


@dataclass
class Cluster:
    """KubeApi.call over the chart's Secret and ConfigMap, and CustomObjectsApi over the APIService."""

    objects: dict[str, Json] = field(
        default_factory=lambda: {name: {"metadata": {"resourceVersion": "1"}} for name in (SECRET, CONFIG_MAP)}
    )
    api_service: Json = field(
        default_factory=lambda: {
            "metadata": {"resourceVersion": "1"},
            "spec": {"service": {"name": "logs", "namespace": "sky", "port": 443}, "versionPriority": 10},
        }
    )
    writes: list[str] = field(default_factory=list)
    failure: Exception | None = None
    before_write: Callable[[], None] = lambda: None

    async def call(self, method: str, path: str, names: Mapping[str, str], body: Json | None = None) -> Json:
        await asyncio.sleep(0)
        where = path.format(**names)
        if where not in self.objects:
            raise ApiException(status=404, reason="Not Found")
        if method == "PUT":
            assert body is not None
            self.before_write()
            if body["metadata"]["resourceVersion"] != self.objects[where]["metadata"]["resourceVersion"]:
                raise ApiException(status=409, reason="Conflict")
            self.objects[where] = copy.deepcopy(body)
            self.objects[where]["metadata"]["resourceVersion"] += "1"
            self.writes.append(where)
        return copy.deepcopy(self.objects[where])

    async def get_cluster_custom_object(self, *where: str, _request_timeout: float) -> Json:
        assert where == ("apiregistration.k8s.io", "v1", "apiservices", NAME)
        if self.failure is not None:
            raise self.failure
        return copy.deepcopy(self.api_service)

    async def patch_cluster_custom_object(self, *where: Any, _content_type: str, _request_timeout: float) -> None:
        assert (where[:4], _content_type) == (("apiregistration.k8s.io", "v1", "apiservices", NAME), "application/merge-patch+json")
        patch = where[4]
        assert set(patch["spec"]) == {"caBundle"}
        if patch["metadata"]["resourceVersion"] != self.api_service["metadata"]["resourceVersion"]:
            raise ApiException(status=409)
        self.api_service["spec"].update(patch["spec"])
        self.api_service["metadata"]["resourceVersion"] += "1"
        self.writes.append("apiservice")

    @property
    def stored(self) -> Identity:
        data = {key: b64decode(value) for key, value in self.objects[SECRET]["data"].items()}
        return cast("Identity", Identity.from_data(data))


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Shown:
    pairs: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __call__(self, certificate: bytes, key: bytes) -> None:
        self.pairs.append((certificate, key))


def keeper(
    cluster: Cluster, use: Callable[[bytes, bytes], None], clock: Callable[[], datetime], lifetimes: Lifetimes = LIFETIMES
) -> CertificateKeeper:
    service = BundleApiService(cast("CustomObjectsApi", cluster), name=NAME, service="logs", namespace="sky")
    return CertificateKeeper(
        CertificateSecret(cluster, namespace="sky", name="tls"),
        [BundleConfigMap(cluster, namespace="sky", name="ca"), service],
        use,
        names=NAMES,
        lifetimes=lifetimes,
        clock=clock,
    )


class TestKeeper:
    async def test_what_is_made_is_kept_published_and_shown(self) -> None:
        cluster, shown = Cluster(), Shown()
        await keeper(cluster, shown, Clock()).step()
        identity = cluster.stored
        assert shown.pairs == [(identity.certificate, identity.key)]
        assert cluster.objects[CONFIG_MAP]["data"] == {"ca.crt": identity.bundle.decode()}
        assert cluster.api_service["spec"]["caBundle"] == b64encode(identity.bundle).decode()
        assert cluster.api_service["spec"]["versionPriority"] == 10

    async def test_what_is_right_is_not_written_again(self) -> None:
        cluster, shown = Cluster(), Shown()
        ours = keeper(cluster, shown, Clock())
        await ours.step()
        writes = list(cluster.writes)
        assert await ours.step() == 60.0
        assert (cluster.writes, len(shown.pairs)) == (writes, 1)

    async def test_a_process_that_starts_again_shows_the_same(self) -> None:
        cluster, shown = Cluster(), Shown()
        await keeper(cluster, shown, Clock()).step()
        await keeper(cluster, shown, Clock()).step()
        assert shown.pairs[0] == shown.pairs[1]

    async def test_two_replicas_that_start_at_once_agree(self) -> None:
        cluster, shown = Cluster(), Shown()
        await asyncio.gather(*(keeper(cluster, shown, Clock()).step() for _ in range(2)))
        assert shown.pairs[0] == shown.pairs[1]
        assert cluster.writes.count(SECRET) == 1

    async def test_a_replica_takes_over_what_the_other_renewed(self) -> None:
        cluster, clock, ours, theirs = Cluster(), Clock(), Shown(), Shown()
        one, other = keeper(cluster, ours, clock), keeper(cluster, theirs, clock)
        await one.step()
        await other.step()
        clock.now += timedelta(days=21)
        await one.step()
        await other.step()
        assert len(ours.pairs) == 2
        assert ours.pairs == theirs.pairs

    async def test_a_secret_that_others_write_all_the_time_is_given_up(self) -> None:
        cluster = Cluster()

        def meddle() -> None:
            cluster.objects[SECRET]["metadata"]["resourceVersion"] += "x"

        cluster.before_write = meddle
        with pytest.raises(KubeError, match="Secret sky/tls is written by others all the time"):
            await keeper(cluster, Shown(), Clock()).step()

    async def test_a_secret_that_is_missing_is_named(self) -> None:
        cluster = Cluster()
        del cluster.objects[SECRET]
        with pytest.raises(KubeError, match=r"Secret sky/tls: HTTP 404 Not Found\. `helm upgrade` makes it again"):
            await keeper(cluster, Shown(), Clock()).step()

    async def test_what_somebody_broke_is_made_anew(self) -> None:
        cluster, shown = Cluster(), Shown()
        await keeper(cluster, shown, Clock()).step()
        cluster.objects[SECRET]["data"]["tls.key"] = "Z2FyYmFnZQ=="
        cluster.objects[SECRET]["data"]["other"] = "c3RheXM="
        await keeper(cluster, shown, Clock()).step()
        assert shown.pairs[0] != shown.pairs[1]
        assert cluster.objects[SECRET]["data"]["other"] == "c3RheXM="

    async def test_a_ca_bundle_that_somebody_changed_is_put_right(self) -> None:
        cluster = Cluster()
        ours = keeper(cluster, Shown(), Clock())
        await ours.step()
        cluster.api_service["spec"]["caBundle"] = "aGVsbQ=="
        await ours.step()
        assert cluster.api_service["spec"]["caBundle"] == b64encode(cluster.stored.bundle).decode()

    async def test_one_place_that_is_missing_keeps_the_authority_from_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        cluster = Cluster()
        del cluster.objects[CONFIG_MAP]
        assert await keeper(cluster, Shown(), Clock()).step() == 10.0
        assert cluster.api_service["spec"]["caBundle"] == b64encode(cluster.stored.bundle).decode()
        assert "ConfigMap sky/ca" in caplog.text

    async def test_an_api_service_of_somebody_else_is_left_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        cluster, shown = Cluster(), Shown()
        cluster.api_service["spec"]["service"]["namespace"] = "other"
        await keeper(cluster, shown, Clock()).step()
        assert "caBundle" not in cluster.api_service["spec"]
        assert "points to other/logs, which is not us" in caplog.text
        assert len(shown.pairs) == 1

    async def test_a_new_certificate_waits_for_its_authority_to_be_published(self) -> None:
        cluster, shown, clock = Cluster(), Shown(), Clock()
        ours = keeper(cluster, shown, clock)
        await ours.step()
        cluster.failure = ApiException(status=503)
        clock.now += timedelta(days=21)
        await ours.step()
        assert len(shown.pairs) == 1
        cluster.failure = None
        await ours.step()
        assert len(shown.pairs) == 2

    async def test_but_not_until_the_old_one_has_run_out(self) -> None:
        cluster, shown, clock = Cluster(), Shown(), Clock()
        ours = keeper(cluster, shown, clock)
        await ours.step()
        cluster.failure = aiohttp.ClientError()
        clock.now += timedelta(days=25)
        await ours.step()
        assert len(shown.pairs) == 2


class TestLive:
    async def test_certificate_and_authority_are_renewed_under_a_follower_and_without_a_restart(self) -> None:
        """The keeper's clock runs from ten days ago until four days ago, so that all it makes is good for a client of today."""
        now = datetime.now(UTC)
        cluster, contexts, log, clock = Cluster(), Contexts(), MemoryLog(b"one\n", state=State.LIVE), Clock(now - timedelta(days=10))
        first = made_before(now)
        cluster.objects[SECRET]["data"] = {key: b64encode(value).decode() for key, value in first.data().items()}
        ours = keeper(cluster, contexts.use_certificate, clock)
        await ours.step()
        async with running(MemoryLogs(log), contexts=contexts) as server, server.client(client_context(first.bundle)) as client:
            async with client.get(f"{LOG}?follow=true&tailLines=1") as answer:
                assert await answer.content.readline() == b"one\n"
                serials = []
                for days in (10, 8, 3):
                    clock.now = now - timedelta(days=days)
                    bundle_of_before = client_context(cluster.stored.bundle)
                    await ours.step()
                    serials.append(await shown_to(server.port, bundle_of_before))
                    published = cluster.objects[CONFIG_MAP]["data"]["ca.crt"].encode()
                    assert serials[-1] == await shown_to(server.port, client_context(published))
                log.append(b"two\n", State.COMPLETE)
                assert await answer.content.read() == b"two\n"
            assert serials[0] == serials[1] == leaf(first).serial_number != serials[2]
            with pytest.raises(ssl.SSLCertVerificationError):
                await shown_to(server.port, client_context(first.bundle))

    async def test_a_client_by_address_and_one_by_name_see_it(self) -> None:
        async with running(MemoryLogs()) as server:
            assert await shown_to(server.port, client_context(), "127.0.0.1") == await shown_to(
                server.port, client_context(), "logs.sky.svc"
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                await shown_to(server.port, client_context(), "logs.other.svc")

    async def test_before_there_is_a_certificate_no_handshake_succeeds(self) -> None:
        async with running(MemoryLogs(), contexts=Contexts()) as server:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown_to(server.port, client_context())

    async def test_a_certificate_with_another_key_changes_nothing(self) -> None:
        contexts = server_contexts()
        with pytest.raises(ssl.SSLError):
            contexts.use_certificate(SERVER.certificate, at(None, 0).key)
        async with running(MemoryLogs(), contexts=contexts) as server:
            assert await shown_to(server.port, client_context()) == leaf(SERVER).serial_number

    async def test_an_authority_that_is_none_changes_nothing(self) -> None:
        contexts = server_contexts()
        with pytest.raises(ssl.SSLError):
            contexts.use_authorities("garbage")
        async with running(MemoryLogs(), contexts=contexts) as server:
            assert await shown_to(server.port, client_context()) == leaf(SERVER).serial_number

    async def test_no_session_is_resumed(self) -> None:
        """One that was would bring along a client who was verified by authorities that may count no more."""
        context = client_context()
        async with running(MemoryLogs()) as server:
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                await reader.read()
                connection = writer.get_extra_info("ssl_object")
                assert connection.version() == "TLSv1.3"
                assert connection.session is None or not connection.session.has_ticket
                writer.close()


def made_before(now: datetime) -> Identity:
    """An authority of 69 days, which is due nine days ago, and a certificate of 24, which is due four days ago."""

    def day(current: Identity | None, days: int) -> Identity:
        return renewed(current, now - timedelta(days=days), names=NAMES, lifetimes=LIFETIMES)

    return day(day(day(None, 69), 46), 24)


async def shown_to(port: int, context: ssl.SSLContext, name: str = "localhost") -> int:
    """The serial number of the certificate that a client sees who verifies it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    await writer.wait_closed()
    return shown.serial_number
