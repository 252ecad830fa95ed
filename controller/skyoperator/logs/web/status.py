"""Every answer that is not what was asked for is a metav1.Status, as kubectl and the client libraries read it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from skyoperator.api.logs import LOGS_GROUP

PLURAL: Final = "skyclusters"

_REASONS: Final = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed",
    HTTPStatus.GONE: "Gone",
    HTTPStatus.TOO_MANY_REQUESTS: "TooManyRequests",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
}


class RefusedError(Exception):
    """A request is not answered; says why, and with which code."""

    def __init__(self, code: HTTPStatus, message: str, *, name: str = "", field: str = "", retry_after_seconds: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        """The object's, if it is about one."""
        self.field = field
        """The parameter's, if it is about one."""
        self.retry_after_seconds = retry_after_seconds
        """When to ask again; 0 if that is not said."""


class UnavailableError(Exception):
    """Who asks, or whether he may, can't be told: kube-apiserver does not say."""


def response(refused: RefusedError) -> web.Response:
    """Return the answer."""
    headers = {"Cache-Control": "no-store"}
    if refused.code is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if refused.retry_after_seconds:
        headers["Retry-After"] = str(refused.retry_after_seconds)
    return web.json_response(document(refused), status=refused.code, headers=headers)


def document(refused: RefusedError) -> dict[str, Any]:
    """Return the metav1.Status. A parameter is named as a cause, as kube-apiserver names a field."""
    details: dict[str, Any] = {"group": LOGS_GROUP, "kind": PLURAL}
    if refused.name:
        details["name"] = refused.name
    if refused.field:
        details["causes"] = [{"reason": "FieldValueInvalid", "message": str(refused), "field": refused.field}]
    if refused.retry_after_seconds:
        details["retryAfterSeconds"] = refused.retry_after_seconds
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(refused),
        "reason": _REASONS.get(refused.code, "Unknown"),
        "details": details,
        "code": int(refused.code),
    }
