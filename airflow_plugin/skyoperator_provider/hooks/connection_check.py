"""Whether a connection is good enough for the operators; what the button `Test` of the form, and `airflow connections test`, say."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from skyoperator_provider.hooks import logs, requests
from skyoperator_provider.hooks.api import Answer, Api, Request, Right, refusal
from skyoperator_provider.skycluster import GROUP, PLURAL

_OLDER_THAN_ITS_REVIEW: Final = "an account that this Kubernetes (before 1.28) does not name"


def run(api: Api, namespace: str) -> tuple[bool, str]:
    """Return whether all is there, and a text that names who asks, in which namespace, and what is missing. Raises ApiError."""
    who = _identity(api)
    missing = [right for right in requests.needed_rights(namespace) if not _may(api, right)]
    if missing:
        rights = "; ".join(f"{right}, which takes the rule {right.rule}" for right in missing)
        return False, f"Reached Kubernetes as {who}, but this account may not: {rights}. The chart's airflow.accounts gives these rights."
    if unserved := _unserved(api, namespace):
        return False, f"Reached Kubernetes as {who}. {unserved}"
    return True, f"Reached Kubernetes as {who}, who has all rights that the operators need in namespace {namespace}."


def _identity(api: Api) -> str:
    request = requests.self_review()
    answer = api.ask(request)
    if answer.status == HTTPStatus.NOT_FOUND:
        return _OLDER_THAN_ITS_REVIEW
    user = _answered(answer, request).document.get("status", {}).get("userInfo", {})
    return str(user.get("username") or "nobody")


def _may(api: Api, right: Right) -> bool:
    request = requests.access_review(right)
    status = _answered(api.ask(request), request).document.get("status") or {}
    return bool(status.get("allowed"))


def _unserved(api: Api, namespace: str) -> str:
    """Return what nobody serves: a right may be had to what there is not."""
    request = requests.list_page(namespace, "", [("limit", "1")])
    answer = api.ask(request)
    if answer.status == HTTPStatus.NOT_FOUND:
        return f"It does not know {PLURAL}.{GROUP}: install the chart skyoperator in this cluster."
    _answered(answer, request)
    return logs.door_is_closed(api.ask(requests.logs_discovery()))


def _answered(answer: Answer, request: Request) -> Answer:
    if not answer.is_good:
        raise refusal(request, answer)
    return answer
