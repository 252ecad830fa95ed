"""May he? Asked of kube-apiserver by SubjectAccessReview, for the very object: Kubernetes' roles are the only ones there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from skyoperator.api.logs import LOGS_GROUP, LOGS_VERSION
from skyoperator.kube import Json
from skyoperator.logs.web.identity import User
from skyoperator.logs.web.reviews import Calls, Remembered, review
from skyoperator.logs.web.status import PLURAL

Subresource = Literal["log", "result"]


@dataclass(frozen=True, slots=True)
class Access:
    """A `get` of what belongs to a SkyCluster, whether that exists or not."""

    namespace: str
    name: str
    subresource: Subresource


class Authorizer(Protocol):
    """Who tells who may."""

    async def may(self, user: User, access: Access) -> bool:
        """Return whether he may. Raises UnavailableError."""


class AccessReviews:
    """An Authorizer: kube-apiserver's own answers."""

    def __init__(self, kube: Calls, remembered: Remembered[bool] | None = None) -> None:
        self._kube = kube
        self._remembered = remembered or Remembered()

    async def may(self, user: User, access: Access) -> bool:
        """See `Authorizer.may`. A webhook that says neither yes nor no has not said yes."""

        async def ask() -> bool:
            status = await review(self._kube, "SubjectAccessReview", _spec(user, access))
            return status.get("allowed") is True and status.get("denied") is not True

        return await self._remembered.get((user, access), ask)


def _spec(user: User, access: Access) -> Json:
    return {
        "user": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra},
        "resourceAttributes": {
            "group": LOGS_GROUP,
            "version": LOGS_VERSION,
            "resource": PLURAL,
            "subresource": access.subresource,
            "verb": "get",
            "namespace": access.namespace,
            "name": access.name,
        },
    }
