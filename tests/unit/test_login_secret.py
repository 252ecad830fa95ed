"""The Secret that keeps our login: written only as it was read, and every failure says which Secret."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException
from skyoperator.kube import Json, KubeApi
from skyoperator.login_secret import LoginSecret
from skyoperator.sky import SkyPilotUnreachable


class OneSecret:
    """KubeApi.call, over one Secret that is replaced only under the resourceVersion it has."""

    def __init__(self, **data: str) -> None:
        self.body: Json = {"metadata": {"name": "login", "resourceVersion": "1", "labels": {"a": "b"}}}
        if data:
            self.body["data"] = {key: b64encode(value.encode()).decode() for key, value in data.items()}
        self.failure: Exception | None = None

    async def call(self, method: str, path: str, names: dict[str, str], body: Any = None) -> Json:
        assert path.format(**names) == "/api/v1/namespaces/sky/secrets/login"
        if self.failure is not None:
            raise self.failure
        if method == "PUT":
            self.write(body)
        return self.body

    def write(self, body: Json) -> None:
        version = self.body["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise ApiException(status=409, reason="Conflict")
        self.body = {**body, "metadata": {**body["metadata"], "resourceVersion": f"{version}1"}}


def store_of(secret: OneSecret) -> LoginSecret:
    return LoginSecret(cast("KubeApi", secret), namespace="sky", name="login")


async def test_what_is_kept_is_read_by_the_next_process() -> None:
    secret = OneSecret(other="stays")
    first = store_of(secret)
    assert await first.login() == ""
    assert await first.keep("sky-1:p:w")
    assert await store_of(secret).login() == "sky-1:p:w"
    assert set(secret.body["data"]) == {"other", "username", "password"}
    assert secret.body["metadata"]["labels"] == {"a": "b"}


async def test_an_empty_secret_has_no_login() -> None:
    assert await store_of(OneSecret()).login() == ""
    assert await store_of(OneSecret(username="half")).login() == ""


async def test_who_wrote_in_between_is_not_overwritten() -> None:
    secret = OneSecret()
    ours, theirs = store_of(secret), store_of(secret)
    assert (await ours.login(), await theirs.login()) == ("", "")
    assert await theirs.keep("theirs:p")
    assert not await ours.keep("ours:p")
    assert await ours.login() == "theirs:p"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (ApiException(status=403, reason="Forbidden"), "HTTP 403 Forbidden"),
        (ApiException(status=404, reason="Not Found"), "HTTP 404 Not Found. `helm upgrade` makes it again"),
        (aiohttp.ClientConnectionError("gone"), "the Kubernetes API does not answer"),
        (TimeoutError(), "the Kubernetes API does not answer"),
    ],
)
async def test_a_failure_makes_skypilot_unknown_and_names_the_secret(failure: Exception, words: str) -> None:
    secret = OneSecret()
    store = store_of(secret)
    await store.login()
    secret.failure = failure
    with pytest.raises(SkyPilotUnreachable, match=f"could not read Secret sky/login.*{words}"):
        await store.login()
    with pytest.raises(SkyPilotUnreachable, match=f"could not write Secret sky/login.*{words}"):
        await store.keep("sky-1:p:w")


async def test_the_advice_is_one_line_to_paste() -> None:
    assert """kubectl -n sky patch secret login --type=merge -p '{"data":null}'""" in store_of(OneSecret()).advice
