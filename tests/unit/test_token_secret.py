"""The Secret that keeps our token: written only as it was read, and every failure says which Secret."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException
from skyoperator.kube import Json, KubeApi
from skyoperator.sky import SkyPilotUnreachable
from skyoperator.token_secret import TokenSecret


class OneSecret:
    """KubeApi.call, over one Secret that is replaced only under the resourceVersion it has."""

    def __init__(self, **data: str) -> None:
        self.body: Json = {"metadata": {"name": "token", "resourceVersion": "1", "labels": {"a": "b"}}}
        if data:
            self.body["data"] = {key: b64encode(value.encode()).decode() for key, value in data.items()}
        self.failure: Exception | None = None

    async def call(self, method: str, path: str, names: dict[str, str], body: Any = None) -> Json:
        assert path.format(**names) == "/api/v1/namespaces/sky/secrets/token"
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


def store_of(secret: OneSecret) -> TokenSecret:
    return TokenSecret(cast("KubeApi", secret), namespace="sky", name="token")


async def test_what_is_kept_is_read_by_the_next_process() -> None:
    secret = OneSecret(other="stays")
    first = store_of(secret)
    assert await first.token() == ""
    assert await first.keep("sky_1")
    assert await store_of(secret).token() == "sky_1"
    assert set(secret.body["data"]) == {"other", "token"}
    assert secret.body["metadata"]["labels"] == {"a": "b"}


async def test_an_empty_secret_has_no_token() -> None:
    assert await store_of(OneSecret()).token() == ""


async def test_who_wrote_in_between_is_not_overwritten() -> None:
    secret = OneSecret()
    ours, theirs = store_of(secret), store_of(secret)
    assert (await ours.token(), await theirs.token()) == ("", "")
    assert await theirs.keep("sky_theirs")
    assert not await ours.keep("sky_ours")
    assert await ours.token() == "sky_theirs"


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
    await store.token()
    secret.failure = failure
    with pytest.raises(SkyPilotUnreachable, match=f"Can't read Secret sky/token.*{words}"):
        await store.token()
    with pytest.raises(SkyPilotUnreachable, match=f"Can't write Secret sky/token.*{words}"):
        await store.keep("sky_1")


async def test_the_advice_is_one_line_to_paste() -> None:
    assert """kubectl -n sky patch secret token --type=merge -p '{"data":null}'""" in store_of(OneSecret()).advice
