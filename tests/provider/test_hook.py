"""The hook, with the true kubernetes client, against a real HTTP server: what it asks, what it asks again, what it says."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.hooks import kubernetes as async_hook_module
from hypothesis import example, given
from hypothesis import strategies as st
from kubernetes.config import ConfigException, incluster_config
from kubernetes_asyncio.config import incluster_config as async_incluster_config
from kubernetes_asyncio.config import kube_config as async_kube_config
from skyoperator_provider.errors import ApiError, ChangedError, ObjectExistsError, SkyClusterRejectedError
from skyoperator_provider.hooks.api import RETRY_AFTER_LIMIT_SECONDS, Answer
from skyoperator_provider.hooks.requests import needed_rights
from skyoperator_provider.hooks.skycluster import AsyncSkyClusterHook, SkyClusterHook

from tests.provider.http_api import NOT_FOUND, Drop, HttpApi, Reply, Stall, serving, status

OBJECTS = "/apis/skyoperator.dev/v1alpha1/namespaces/ml/skyclusters"
TRAIN = f"{OBJECTS}/train"
LOG = "/apis/logs.skyoperator.dev/v1alpha1/namespaces/ml/skyclusters/train/log"
RESULT = "/apis/logs.skyoperator.dev/v1alpha1/namespaces/ml/skyclusters/train/result"
OBJECT = {"apiVersion": "skyoperator.dev/v1alpha1", "kind": "SkyCluster", "metadata": {"name": "train", "namespace": "ml", "uid": "u1"}}
GOOD = Reply(200, OBJECT)
NOBODY_SERVES_IT = Reply(404, b"404 page not found\n", {"Content-Type": "text/plain"})
PASSING = [429, 500, 502, 503, 504]


@pytest.fixture
def server() -> Iterator[HttpApi]:
    with serving() as api:
        yield api


def kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "the-token"}}],
    }


def connect(monkeypatch: pytest.MonkeyPatch, url: str, conn_type: str = "kubernetes", **extra: Any) -> None:
    connection = {"conn_type": conn_type, "extra": {"kube_config": kubeconfig(url), **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))


@pytest.fixture
def hook(server: HttpApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[SkyClusterHook]:
    connect(monkeypatch, server.url)
    hook = SkyClusterHook()
    hook.pauses_seconds = (0.0, 0.0, 0.0)
    yield hook
    hook.api.close()


def slept(hook: SkyClusterHook) -> list[float]:
    """Let the hook's pauses take no time, and return where they are written down."""
    pauses: list[float] = []
    hook.api._sleep = pauses.append
    return pauses


# What is asked


def test_an_object_is_read_with_the_connections_token(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(GOOD)
    assert hook.read("ml", "train") == OBJECT
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["Authorization"]) == ("GET", TRAIN, "Bearer the-token")


def test_an_object_that_is_not_there_is_none(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(NOT_FOUND)
    assert hook.read("ml", "train") is None


@pytest.mark.parametrize("reply", [NOBODY_SERVES_IT, Reply(404, b"<html>nginx</html>"), status(404, "NotFound", "no such thing")])
def test_a_404_that_speaks_of_no_object_is_no_absence(hook: SkyClusterHook, server: HttpApi, reply: Reply) -> None:
    """Else a task would make a second cluster since a proxy lost its way."""
    server.will(reply)
    with pytest.raises(ApiError, match=r"read SkyCluster ml/train.*skyoperator\.dev"):
        hook.read("ml", "train")
    with pytest.raises(ApiError):
        hook.delete("ml", "train")
    with pytest.raises(ApiError) as caught:
        hook.annotate("ml", "train", {})
    assert not isinstance(caught.value, ChangedError)


def test_a_good_answer_that_is_no_object_is_an_error(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Reply(200, b"<html>please log in</html>"))
    with pytest.raises(ApiError, match="please log in"):
        hook.read("ml", "train")


def test_names_are_no_paths(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(NOT_FOUND)
    hook.read("../../x", "a/log?b")
    assert server.asked[0].path == "/apis/skyoperator.dev/v1alpha1/namespaces/..%2F..%2Fx/skyclusters/a%2Flog%3Fb"
    hook.read_log("../x", "a/log?b", uid="u1")
    assert server.asked[1].path == "/apis/logs.skyoperator.dev/v1alpha1/namespaces/..%2Fx/skyclusters/a%2Flog%3Fb/log"


def test_an_object_is_made_in_its_namespace(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Reply(201, OBJECT))
    assert hook.create(OBJECT) == OBJECT
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", OBJECTS, OBJECT)


@pytest.mark.parametrize("metadata", [{"generateName": "train-", "namespace": "ml"}, {"name": "train"}, {}])
def test_an_object_without_a_name_is_never_asked_for(hook: SkyClusterHook, server: HttpApi, metadata: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"metadata\.name"):
        hook.create({**OBJECT, "metadata": metadata})
    assert server.asked == []


def test_pages_are_put_together(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Reply(200, {"items": [{"n": 1}], "metadata": {"continue": "t/1"}}), Reply(200, {"items": [{"n": 2}], "metadata": {}}))
    assert hook.list_by_label("ml", "airflow.skyoperator.dev/task=abc") == [{"n": 1}, {"n": 2}]
    first, second = server.asked
    assert first.query == {"labelSelector": "airflow.skyoperator.dev/task=abc", "limit": "250"}
    assert second.query == {**first.query, "continue": "t/1"}


def test_a_list_that_became_too_old_is_had_anew_and_nothing_twice(hook: SkyClusterHook, server: HttpApi) -> None:
    first = Reply(200, {"items": [{"n": 1}], "metadata": {"continue": "t"}})
    server.will(first, status(410, "Expired"), Reply(200, {"items": [{"n": 1}, {"n": 2}], "metadata": {}}))
    assert hook.list_by_label("ml", "a=b") == [{"n": 1}, {"n": 2}]
    assert server.asked[2].query == {"labelSelector": "a=b"}


def test_annotations_are_merged_under_preconditions(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(GOOD)
    assert hook.annotate("ml", "train", {"a/b": "2"}, uid="u1", resource_version="7") == OBJECT
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["Content-Type"]) == ("PATCH", TRAIN, "application/merge-patch+json")
    assert asked.body == {"metadata": {"annotations": {"a/b": "2"}, "uid": "u1", "resourceVersion": "7"}}
    hook.annotate("ml", "train", {"a/b": "2"})
    assert server.asked[1].body == {"metadata": {"annotations": {"a/b": "2"}}}


def test_a_deletion_carries_its_preconditions(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Reply(200, {"kind": "Status", "status": "Success"}))
    assert hook.delete("ml", "train", uid="u1", resource_version="7")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("DELETE", TRAIN)
    assert asked.body == {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u1", "resourceVersion": "7"}}
    hook.delete("ml", "train")
    assert "preconditions" not in server.asked[1].body


def test_to_delete_what_is_gone_is_no_error(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(NOT_FOUND)
    assert hook.delete("ml", "train", uid="u1") is False


# What is not what it was

UID_OF_ANOTHER = status(
    422, "Invalid", "uid: field is immutable", name="train", causes=[{"field": "metadata.uid", "reason": "FieldValueInvalid"}]
)


@pytest.mark.parametrize("reply", [status(409, "Conflict", name="train"), UID_OF_ANOTHER, NOT_FOUND], ids=["version", "uid", "gone"])
def test_annotating_another_object_is_told_apart(hook: SkyClusterHook, server: HttpApi, reply: Reply) -> None:
    server.will(reply)
    with pytest.raises(ChangedError, match="annotate SkyCluster ml/train"):
        hook.annotate("ml", "train", {"a": "b"}, uid="u1", resource_version="7")
    assert len(server.asked) == 1


def test_deleting_another_object_is_told_apart(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(status(409, "Conflict", "Precondition failed: UID in precondition: u1, UID in object meta: u2"))
    with pytest.raises(ChangedError, match="UID in object meta: u2"):
        hook.delete("ml", "train", uid="u1")
    assert len(server.asked) == 1


def test_an_annotation_that_is_refused_is_no_change(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(status(422, "Invalid", "too long", causes=[{"field": "metadata.annotations"}]))
    with pytest.raises(ApiError) as caught:
        hook.annotate("ml", "train", {"a": "b"})
    assert not isinstance(caught.value, ChangedError)


# What is asked again


@pytest.mark.parametrize(
    "bad", [*(status(code) for code in PASSING), Drop(), Reply(200, OBJECT, cut=20)], ids=[*map(str, PASSING), "drop", "cut"]
)
@pytest.mark.parametrize("method", ["read", "create", "annotate", "delete"])
def test_what_passes_by_itself_is_asked_again(hook: SkyClusterHook, server: HttpApi, method: str, bad: Reply | Drop) -> None:
    calls: dict[str, Any] = {
        "read": lambda: hook.read("ml", "train"),
        "create": lambda: hook.create(OBJECT),
        "annotate": lambda: hook.annotate("ml", "train", {"a": "b"}),
        "delete": lambda: hook.delete("ml", "train"),
    }
    server.will(bad, bad, GOOD)
    assert calls[method]() in (OBJECT, True)
    assert len(server.asked) == 3


@pytest.mark.parametrize("bad", [status(503, message="etcd is away"), Drop()], ids=["503", "drop"])
def test_asking_again_has_an_end_and_the_last_words_are_told(hook: SkyClusterHook, server: HttpApi, bad: Reply | Drop) -> None:
    server.will(bad)
    with pytest.raises(ApiError, match=r"read SkyCluster ml/train: (etcd is away|.*was not reached)"):
        hook.read("ml", "train")
    assert len(server.asked) == 1 + len(hook.pauses_seconds)


def test_a_server_that_is_not_there_is_named(hook: SkyClusterHook, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(ApiError, match=r"http://127\.0\.0\.1:1 was not reached"):
        hook.read("ml", "train")


@pytest.mark.parametrize("code", [400, 401, 403, 405, 413])
def test_what_does_not_pass_is_asked_once(hook: SkyClusterHook, server: HttpApi, code: int) -> None:
    server.will(status(code))
    with pytest.raises(ApiError, match="the server's words") as caught:
        hook.read("ml", "train")
    assert (len(server.asked), caught.value.status) == (1, code)


def test_a_server_that_asks_for_time_is_given_it(hook: SkyClusterHook, server: HttpApi) -> None:
    pauses = slept(hook)
    busy = status(429, "TooManyRequests").body
    server.will(Reply(429, busy, {"Retry-After": "7"}), Reply(429, busy, {"Retry-After": "86400"}), Reply(503, busy), GOOD)
    assert hook.read("ml", "train") == OBJECT
    assert pauses == [7.0, RETRY_AFTER_LIMIT_SECONDS, 0.0]


def test_pauses_grow(hook: SkyClusterHook, server: HttpApi) -> None:
    hook.pauses_seconds = SkyClusterHook.pauses_seconds
    pauses = slept(hook)
    server.will(status(500))
    with pytest.raises(ApiError):
        hook.read("ml", "train")
    assert pauses == sorted(pauses)
    assert 20 < sum(pauses) < 60


@given(st.text())
@example("²")
@example("9" * 999)
def test_any_retry_after_is_a_time(text: str) -> None:
    assert 0.0 <= Answer(429, {"Retry-After": text}, b"").retry_after_seconds <= RETRY_AFTER_LIMIT_SECONDS


@given(st.binary() | st.from_type(type(None)).map(lambda _: b'{"details": 1, "kind": []}'))
def test_any_body_is_read(body: bytes) -> None:
    answer = Answer(500, {}, body)
    assert isinstance(answer.message, str)
    assert isinstance(answer.details, dict)


# Making an object


def test_after_a_lost_answer_the_object_may_be_there(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Drop(), status(409, "AlreadyExists", name="train"))
    with pytest.raises(ObjectExistsError, match="create SkyCluster ml/train"):
        hook.create(OBJECT)
    assert len(server.asked) == 2


def test_a_quota_that_is_being_written_is_no_object(hook: SkyClusterHook, server: HttpApi) -> None:
    """resourcequotas: "the object has been modified; please apply your changes to the latest version" is a 409, too."""
    server.will(status(409, "Conflict"), Reply(201, OBJECT))
    assert hook.create(OBJECT) == OBJECT


UNKNOWN_FIELD = (
    'SkyCluster in version "v1alpha1" cannot be handled as a SkyCluster: strict decoding error: unknown field "spec.autostop.idleMinute"'
)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (status(422, "Invalid", 'spec.retryOn: Unsupported value: "Never"'), "Unsupported value"),
        (status(400, "BadRequest", UNKNOWN_FIELD), "unknown field"),
    ],
)
def test_a_manifest_that_is_none_is_not_tried_again_by_airflow(hook: SkyClusterHook, server: HttpApi, refusal: Reply, words: str) -> None:
    server.will(refusal)
    with pytest.raises(SkyClusterRejectedError, match=words) as caught:
        hook.create(OBJECT)
    assert (caught.value.reason, len(server.asked)) == ("InvalidTask", 1)


@pytest.mark.parametrize(
    "refusal", [status(400, "", "admission webhook denied the request: the budget is spent"), Reply(400, b"<html>Bad Request</html>")]
)
def test_what_others_refuse_may_pass(hook: SkyClusterHook, server: HttpApi, refusal: Reply) -> None:
    server.will(refusal)
    with pytest.raises(ApiError, match="create SkyCluster ml/train"):
        hook.create(OBJECT)


def test_a_misspelled_field_is_not_dropped_in_silence(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Reply(201, OBJECT))
    hook.create(OBJECT)
    assert server.asked[0].query == {"fieldValidation": "Strict"}


# On kill


def program_of(runs: Path) -> dict[str, Any]:
    """Return a kubeconfig's program whose tokens say how often it was run, and have expired already."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "token-NUMBER", "expirationTimestamp": "2026-01-01T00:00:00Z"},
    }
    script = f"echo run >>{runs}; echo '{json.dumps(credential)}' | sed \"s/NUMBER/$(wc -l <{runs} | tr -d ' ')/\""
    return {"apiVersion": credential["apiVersion"], "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}


def test_a_hasty_request_waits_for_no_program_that_makes_tokens(server: HttpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a token that has expired is made anew in a signal handler, by a program of the kubeconfig that takes its time."""
    runs = tmp_path / "runs"
    config = kubeconfig(server.url)
    config["users"][0]["user"] = {"exec": program_of(runs)}
    connect(monkeypatch, server.url, kube_config=config)
    hook = SkyClusterHook()
    server.will(GOOD)
    hook.prepare()
    hook.read("ml", "train", request_timeout_seconds=3)
    hook.read("ml", "train")
    count = len(runs.read_text().splitlines())
    hook.read("ml", "train", request_timeout_seconds=3)
    assert len(runs.read_text().splitlines()) == count
    hook.read("ml", "train")
    tokens = [int(asked.headers["Authorization"].removeprefix("Bearer token-")) for asked in server.asked]
    assert tokens[1] == tokens[2] == count
    assert tokens[0] < tokens[1] < tokens[3]
    hook.api.close()


@pytest.mark.parametrize("away", [OSError(24, "Too many open files"), ConfigException("Token file exists but empty.")])
def test_a_token_that_is_away_for_a_moment_is_asked_for_again(hook: SkyClusterHook, server: HttpApi, away: Exception) -> None:
    """Bug: a job that fared well was deleted, as its worker could not read its token once."""
    failures = [away]

    def renew(_: object) -> None:
        if failures:
            raise failures.pop()

    hook.api._client.configuration.refresh_api_key_hook = renew
    server.will(GOOD)
    assert hook.read("ml", "train")
    failures.extend([away] * 99)
    with pytest.raises(ApiError, match="can't be renewed"):
        hook.read("ml", "train")


@pytest.mark.parametrize("reply", [Drop(), status(503)], ids=["drop", "503"])
def test_a_hasty_deletion_is_asked_once(
    hook: SkyClusterHook, server: HttpApi, caplog: pytest.LogCaptureFixture, reply: Reply | Drop
) -> None:
    server.will(reply)
    with caplog.at_level(logging.DEBUG, logger="skyoperator_provider"), pytest.raises(ApiError):
        hook.delete("ml", "train", uid="u1", request_timeout_seconds=3)
    assert len(server.asked) == 1
    assert [record for record in caplog.records if record.name.startswith("skyoperator_provider")] == []


def test_a_hasty_deletion_ends_in_its_time(hook: SkyClusterHook, server: HttpApi) -> None:
    """urllib3 would ask four times, and take four times as long."""
    server.will(Stall())
    began = time.monotonic()
    with pytest.raises(ApiError, match="delete SkyCluster ml/train"):
        hook.delete("ml", "train", request_timeout_seconds=0.2)
    assert time.monotonic() - began < 2
    assert len(server.asked) == 1


def test_a_hasty_deletion_waits_for_no_lock_of_what_it_interrupts(hook: SkyClusterHook, server: HttpApi) -> None:
    """on_kill runs in a signal handler: the request that it interrupts may hold the lock of the pool of connections."""
    server.will(GOOD)
    hook.read("ml", "train")
    pools = hook.api._rest.pool_manager.pools
    (pool,) = (pools[key] for key in pools.keys())  # noqa: SIM118 - no dict; it can't be iterated
    with pool.pool.mutex:
        deletion = threading.Thread(target=hook.delete, args=("ml", "train"), kwargs={"request_timeout_seconds": 3}, daemon=True)
        deletion.start()
        deletion.join(5)
        assert not deletion.is_alive()
    assert [asked.method for asked in server.asked] == ["GET", "DELETE"]


def test_after_the_first_request_nothing_is_asked_of_airflow(
    hook: SkyClusterHook, server: HttpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """on_kill runs while the main thread may hold the lock of every call to Airflow."""
    server.will(GOOD)
    hook.read("ml", "train")

    def called(*_: Any, **__: Any) -> None:
        raise AssertionError("Airflow was asked")

    monkeypatch.setattr(SkyClusterHook, "get_connection", called)
    monkeypatch.setattr("skyoperator_provider.settings.conf", None)
    assert hook.delete("ml", "train", uid="u1", request_timeout_seconds=3)


# Gone


def test_gone_is_when_it_is_not_there_or_another_is(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(GOOD, GOOD, NOT_FOUND)
    assert hook.wait_gone("ml", "train", "u1", timeout_seconds=30, poll_seconds=0)
    server.will(Reply(200, {**OBJECT, "metadata": {"uid": "u2"}}))
    assert hook.wait_gone("ml", "train", "u1", timeout_seconds=0)


def test_what_stays_is_not_gone(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(GOOD)
    began = time.monotonic()
    assert not hook.wait_gone("ml", "train", "u1", timeout_seconds=0.5, poll_seconds=60)
    assert time.monotonic() - began < 20


def test_a_server_that_does_not_answer_is_no_absence(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Drop())
    with pytest.raises(ApiError):
        hook.wait_gone("ml", "train", "u1", timeout_seconds=5, poll_seconds=0)


# Words


def test_a_missing_right_is_named_with_the_rule_that_grants_it(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(status(403, "Forbidden", 'User "me" cannot patch resource "skyclusters" in API group'))
    with pytest.raises(ApiError) as caught:
        hook.annotate("ml", "train", {"a": "b"})
    for part in ("annotate SkyCluster ml/train", 'User "me" cannot patch', "patch skyclusters of skyoperator.dev in namespace ml"):
        assert part in str(caught.value)
    rule = '{apiGroups: ["skyoperator.dev"], resources: ["skyclusters"], verbs: ["patch"]}'
    assert rule in str(caught.value)
    assert yaml.safe_load(rule)["verbs"] == ["patch"]


@pytest.mark.parametrize("words", ["exceeded quota: jobs", "unable to create new content in namespace ml because it is being terminated"])
def test_a_refusal_for_another_cause_is_no_missing_right(hook: SkyClusterHook, server: HttpApi, words: str) -> None:
    server.will(status(403, "Forbidden", words))
    with pytest.raises(ApiError, match=words) as caught:
        hook.create(OBJECT)
    assert "may not" not in str(caught.value)


def test_a_certificate_that_does_not_fit_is_told_at_once(hook: SkyClusterHook, server: HttpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not get better by itself."""
    connect(monkeypatch, server.url.replace("http:", "https:"))
    pauses = slept(hook)
    with pytest.raises(ApiError, match=r"read SkyCluster ml/train: https://.*SSL"):
        hook.read("ml", "train")
    assert pauses == []


def test_credentials_that_are_none_are_told(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(status(401, "Unauthorized"))
    with pytest.raises(ApiError, match="expired"):
        hook.list_by_label("ml", "a=b")


# Logs


def log_reply(body: bytes, offset: int | str, state: str = "live", **headers: str) -> Reply:
    return Reply(
        200,
        body,
        {"Content-Type": "text/plain; charset=utf-8", "Skyoperator-Next-Offset": str(offset), "Skyoperator-Log-State": state, **headers},
    )


def test_a_log_is_read_from_a_byte_on_even_within_a_character(hook: SkyClusterHook, server: HttpApi) -> None:
    data = "grün".encode()[3:] + "\xff\n".encode("latin-1")
    server.will(log_reply(data, 77, "incomplete", **{"Skyoperator-Log-Message": "the node was lost"}))
    piece = hook.read_log("ml", "train", uid="u1", offset_bytes=70, limit_bytes=65536, attempt=2)
    assert (piece.data, piece.next_offset_bytes, piece.state, piece.message) == (data, 77, "incomplete", "the node was lost")
    (asked,) = server.asked
    assert (asked.path, asked.query) == (LOG, {"uid": "u1", "offsetBytes": "70", "limitBytes": "65536", "attempt": "2"})


def test_last_lines_are_asked_for_without_an_offset(hook: SkyClusterHook, server: HttpApi) -> None:
    """The log API refuses both together."""
    server.will(log_reply(b"x\n", 5))
    hook.read_log("ml", "train", uid="u1", offset_bytes=3, tail_lines=20)
    assert server.asked[0].query == {"uid": "u1", "tailLines": "20"}


def test_a_log_that_is_not_there_is_absent(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(status(404, "NotFound", "there is no log of ml/train", name="train"))
    piece = hook.read_log("ml", "train", uid="u1", offset_bytes=9)
    assert (piece.state, piece.data, piece.next_offset_bytes, piece.message) == ("absent", b"", None, "there is no log of ml/train")


def test_a_log_that_breaks_off_is_read_again(hook: SkyClusterHook, server: HttpApi) -> None:
    whole = log_reply(b"0123456789", 10)
    server.will(Reply(200, whole.body, whole.headers, cut=4), whole)
    assert hook.read_log("ml", "train", uid="u1").data == b"0123456789"


@pytest.mark.parametrize("method", ["read_log", "result"])
def test_where_nobody_serves_logs_it_is_said_how_to(hook: SkyClusterHook, server: HttpApi, method: str) -> None:
    server.will(NOBODY_SERVES_IT)
    with pytest.raises(ApiError, match=r"logs\.apiService\.enabled=true"):
        getattr(hook, method)("ml", "train", uid="u1")


@pytest.mark.parametrize(("method", "resource"), [("read_log", "skyclusters/log"), ("result", "skyclusters/result")])
def test_a_missing_right_to_logs_is_named(hook: SkyClusterHook, server: HttpApi, method: str, resource: str) -> None:
    server.will(status(403, "Forbidden", f'User "me" cannot get resource "{resource}" in API group'))
    with pytest.raises(ApiError, match=f'apiGroups: \\["logs.skyoperator.dev"\\], resources: \\["{resource}"\\], verbs: \\["get"\\]'):
        getattr(hook, method)("ml", "train", uid="u1")


@pytest.mark.parametrize(
    "reply", [Reply(200, b"hello"), log_reply(b"", "many"), log_reply(b"", 1, "dead"), log_reply(b"", "-1"), log_reply(b"", "9" * 5000)]
)
def test_who_is_no_log_service_is_not_believed(hook: SkyClusterHook, server: HttpApi, reply: Reply) -> None:
    server.will(reply)
    with pytest.raises(ApiError, match="not skyoperator's log service"):
        hook.read_log("ml", "train", uid="u1")


# Results


def result_reply(body: bytes, digest: str | None = None) -> Reply:
    return Reply(200, body, {"Skyoperator-Result-SHA256": digest or sha256(body).hexdigest()})


def test_a_result_is_had_with_its_digest(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(result_reply(b'{"loss": 0.1}'))
    found = hook.result("ml", "train", uid="u1", attempt=3)
    assert (found.state, found.body) == ("present", b'{"loss": 0.1}')
    assert (server.asked[0].path, server.asked[0].query) == (RESULT, {"uid": "u1", "attempt": "3"})


def test_a_result_that_is_another_is_never_given(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(result_reply(b"1", sha256(b"2").hexdigest()))
    with pytest.raises(ApiError, match="SHA-256"):
        hook.result("ml", "train", uid="u1")


def test_a_result_without_a_digest_is_none_of_ours(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(Reply(200, b"1"))
    with pytest.raises(ApiError, match="not skyoperator's log service"):
        hook.result("ml", "train", uid="u1")


@pytest.mark.parametrize(("code", "state"), [(404, "not yet"), (410, "lost")])
def test_no_result_is_told_from_a_lost_one(hook: SkyClusterHook, server: HttpApi, code: int, state: str) -> None:
    server.will(status(code, name="train", message="two frames are missing"))
    found = hook.result("ml", "train", uid="u1")
    assert (found.state, found.body, found.message) == (state, b"", "two frames are missing")


# The connection

ME = Reply(201, {"kind": "SelfSubjectReview", "status": {"userInfo": {"username": "system:serviceaccount:airflow:worker"}}})
MAY = Reply(201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": True}})
MAY_NOT = Reply(201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": False}})
EMPTY = Reply(200, {"kind": "SkyClusterList", "items": []})
SERVED = Reply(200, {"kind": "APIResourceList"})
RIGHTS = len(needed_rights("ml"))


def test_a_good_connection_names_who_and_where(server: HttpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, server.url, namespace="ml")
    server.will(ME, *[MAY] * RIGHTS, EMPTY, SERVED)
    hook = SkyClusterHook()
    is_good, text = hook.test_connection()
    hook.api.close()
    assert is_good, text
    assert "system:serviceaccount:airflow:worker" in text
    assert "namespace ml" in text
    reviews = [asked.body["spec"]["resourceAttributes"] for asked in server.asked if asked.path.endswith("selfsubjectaccessreviews")]
    assert {(review["group"], review["resource"], review.get("subresource"), review["verb"]) for review in reviews} == {
        *(("skyoperator.dev", "skyclusters", None, verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
        ("logs.skyoperator.dev", "skyclusters", "log", "get"),
        ("logs.skyoperator.dev", "skyclusters", "result", "get"),
    }
    assert {review["namespace"] for review in reviews} == {"ml"}


def test_what_is_asked_for_is_what_the_chart_grants() -> None:
    """docs/rbac.md, which the chart's own test compares with what is rendered."""
    page = (Path(__file__).parents[2] / "docs" / "rbac.md").read_text()
    section = page.partition("## Airflow, in each watched namespace\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]
    granted = {(group, kind, verb) for group, kinds, verbs, _ in rows for kind in kinds.split(", ") for verb in verbs.split(", ")}
    assert {(right.group, right.resource, right.verb) for right in needed_rights("ml")} == granted


def test_each_missing_right_is_named(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(ME, *[MAY] * 4, MAY_NOT, *[MAY] * 2, MAY_NOT)
    is_good, text = hook.test_connection()
    assert not is_good
    assert "system:serviceaccount:airflow:worker" in text
    assert "patch skyclusters of skyoperator.dev in namespace default" in text
    assert "get skyclusters/result of logs.skyoperator.dev" in text
    assert "create" not in text


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([NOBODY_SERVES_IT], "install the chart"),
        ([EMPTY, NOBODY_SERVES_IT], "logs.apiService.enabled=true"),
        ([EMPTY, status(503, message="service unavailable")], "service unavailable"),
    ],
)
def test_a_right_to_what_there_is_not_is_no_good_connection(
    hook: SkyClusterHook, server: HttpApi, replies: list[Reply], words: str
) -> None:
    server.will(ME, *[MAY] * RIGHTS, *replies)
    is_good, text = hook.test_connection()
    assert not is_good
    assert words in text


def test_an_old_kubernetes_can_be_used_too(hook: SkyClusterHook, server: HttpApi) -> None:
    server.will(NOBODY_SERVES_IT, *[MAY] * RIGHTS, EMPTY, SERVED)
    is_good, text = hook.test_connection()
    assert is_good, text
    assert "before 1.28" in text


@pytest.mark.parametrize("reply", [Drop(), status(401, "Unauthorized"), Reply(200, b"<html>")])
def test_a_bad_connection_is_a_text_and_no_exception(hook: SkyClusterHook, server: HttpApi, reply: Reply | Drop) -> None:
    server.will(reply)
    is_good, text = hook.test_connection()
    assert not is_good
    assert text


def test_a_connection_that_is_none_is_a_text_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(tmp_path / "none")}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    is_good, text = SkyClusterHook().test_connection()
    assert not is_good
    assert text


@pytest.mark.parametrize("conn_type", ["kubernetes", "skyoperator"])
def test_any_kubernetes_connection_may_say_what_ours_says(monkeypatch: pytest.MonkeyPatch, conn_type: str) -> None:
    connect(
        monkeypatch, "http://127.0.0.1:1", conn_type, namespace="ml", deployment="prod", dashboard_url="https://sky.example.com/dashboard"
    )
    hook = SkyClusterHook(kubernetes_conn_id="kubernetes_default")
    assert (hook.get_namespace(), hook.deployment, hook.dashboard_url) == ("ml", "prod", "https://sky.example.com/dashboard")


def test_what_a_connection_does_not_say_the_configuration_does(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://127.0.0.1:1")
    assert (SkyClusterHook().deployment, SkyClusterHook().dashboard_url, SkyClusterHook().get_namespace()) == ("default", None, None)
    monkeypatch.setenv("AIRFLOW__SKYOPERATOR__DEPLOYMENT", "staging")
    monkeypatch.setenv("AIRFLOW__SKYOPERATOR__DASHBOARD_URL", "https://sky")
    assert (SkyClusterHook().deployment, SkyClusterHook().dashboard_url) == ("staging", "https://sky")


# The async twin


async def test_triggers_have_the_same_connection(server: HttpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, server.url, namespace="ml", deployment="prod")
    monkeypatch.setenv("AIRFLOW__SKYOPERATOR__DASHBOARD_URL", "https://sky")
    hook = AsyncSkyClusterHook()
    assert (await hook.get_namespace(), await hook.get_deployment(), await hook.get_dashboard_url()) == ("ml", "prod", "https://sky")
    async with hook.get_conn() as client:
        assert client.configuration.host == server.url


async def test_triggers_honour_a_config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """cncf's hook goes by ~/.kube/config instead, and talks to another cluster."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes"}))
    file = tmp_path / "config"
    file.write_text(json.dumps(kubeconfig("http://127.0.0.1:2")))
    async with AsyncSkyClusterHook(config_file=str(file)).get_conn() as client:
        assert client.configuration.host == "http://127.0.0.1:2"


async def test_triggers_take_a_config_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes"}))
    async with AsyncSkyClusterHook(config_dict=kubeconfig("http://127.0.0.1:3")).get_conn() as client:
        assert client.configuration.host == "http://127.0.0.1:3"


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A pod's service account, for both clients, and no kubeconfig."""
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("the-pods-token")
    authority.write_text("a certificate")
    for config in (incluster_config, async_incluster_config):
        monkeypatch.setattr(config, "SERVICE_TOKEN_FILENAME", str(token))
        monkeypatch.setattr(config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setattr(async_kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(async_hook_module, "_TimeoutAsyncK8sApiClient", Client)
    return token


class Client:
    """A client that reads no certificate."""

    def __init__(self, configuration: Any) -> None:
        self.configuration = configuration

    async def close(self) -> None:
        pass


EMPTY_FORM = {"in_cluster": False, "kube_config_path": "", "kube_config": "", "cluster_context": ""}


@pytest.mark.parametrize("extra", [{}, EMPTY_FORM, {"in_cluster": True}], ids=["nothing", "an empty form", "in_cluster"])
async def test_in_a_pod_triggers_are_the_pod_as_workers_are(pod: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    """Bug: create works, and then its trigger says "Invalid kube-config file"."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    async with AsyncSkyClusterHook().get_conn() as client:
        assert client.configuration.host == "https://10.0.0.1:443"
        assert client.configuration.api_key == {"BearerToken": "Bearer the-pods-token"}
        assert client.configuration.refresh_api_key_hook is not None


async def test_in_a_pod_what_a_connection_says_counts(pod: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connect(monkeypatch, "http://127.0.0.1:4")
    async with AsyncSkyClusterHook().get_conn() as client:
        assert client.configuration.host == "http://127.0.0.1:4"
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes"}))
    async with AsyncSkyClusterHook(config_dict=kubeconfig("http://127.0.0.1:5")).get_conn() as client:
        assert client.configuration.host == "http://127.0.0.1:5"


async def test_without_a_service_account_it_is_the_default_kubeconfig(pod: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    file = tmp_path / "config"
    file.write_text(json.dumps(kubeconfig("http://127.0.0.1:6")))
    monkeypatch.setattr(async_kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes"}))
    async with AsyncSkyClusterHook().get_conn() as client:
        assert client.configuration.host == "http://127.0.0.1:6"
