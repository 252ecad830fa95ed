"""What kube-apiserver, kubectl and the controllers of Kubernetes ask an aggregated API server about itself.

kube-aggregator counts a server as available while it answers /apis/<group>/<version> with 2xx
(k8s.io/kube-aggregator 0.34, pkg/controllers/status/remote/remote_available_controller.go:309); it merges our `/apis` into its own
(pkg/apiserver/handler_discovery.go), and takes 404 at /openapi/v3 and /openapi/v2 as "there is none"
(pkg/controllers/openapi/aggregator/downloader.go, pkg/controllers/openapiv3/aggregator/aggregator.go).

`skyclusters` itself is not served here, only what belongs to one: garbage collector and namespace controller look for resources that
can be listed and deleted, and find none; and `kubectl get skyclusters` knows one kind of that name, the CRD's.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Final

from skyoperator.api.logs import LOGS_GROUP, LOGS_VERSION
from skyoperator.logs.web.status import PLURAL

GROUP_VERSION: Final = f"{LOGS_GROUP}/{LOGS_VERSION}"
AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_SUBRESOURCES: Final = (("log", "SkyClusterLog"), ("result", "SkyClusterResult"))
_VERSION_ENTRY: Final = {"groupVersion": GROUP_VERSION, "version": LOGS_VERSION}
_GROUP_ENTRY: Final[dict[str, Any]] = {"name": LOGS_GROUP, "versions": [_VERSION_ENTRY], "preferredVersion": _VERSION_ENTRY}

API_GROUP: Final[dict[str, Any]] = {"kind": "APIGroup", "apiVersion": "v1", **_GROUP_ENTRY}
API_GROUP_LIST: Final[dict[str, Any]] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP_ENTRY]}
API_RESOURCE_LIST: Final[dict[str, Any]] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": GROUP_VERSION,
    "resources": [
        {"name": f"{PLURAL}/{subresource}", "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
        for subresource, kind in _SUBRESOURCES
    ],
}
# A parent without a kind, as k8s.io/apiserver makes one for subresources that have none (pkg/endpoints/installer.go:129).
API_GROUP_DISCOVERY_LIST: Final[dict[str, Any]] = {
    "kind": "APIGroupDiscoveryList",
    "apiVersion": "apidiscovery.k8s.io/v2",
    "metadata": {},
    "items": [
        {
            "metadata": {"name": LOGS_GROUP, "creationTimestamp": None},
            "versions": [
                {
                    "version": LOGS_VERSION,
                    "freshness": "Current",
                    "resources": [
                        {
                            "resource": PLURAL,
                            "responseKind": {"group": "", "version": "", "kind": ""},
                            "scope": "Namespaced",
                            "singularResource": "",
                            "verbs": [],
                            "subresources": [
                                {
                                    "subresource": subresource,
                                    "responseKind": {"group": LOGS_GROUP, "version": LOGS_VERSION, "kind": kind},
                                    "verbs": ["get"],
                                }
                                for subresource, kind in _SUBRESOURCES
                            ],
                        }
                    ],
                }
            ],
        }
    ],
}
AGGREGATED_ETAG: Final = f'"{sha256(json.dumps(API_GROUP_DISCOVERY_LIST).encode()).hexdigest().upper()}"'


def wants_aggregated(accept: str) -> bool:
    """Return whether an Accept header asks for apidiscovery.k8s.io/v2, in whatever order it has its parameters."""
    return any(
        _parameters(one) >= {"application/json", "g=apidiscovery.k8s.io", "v=v2", "as=apigroupdiscoverylist"} for one in accept.split(",")
    )


def _parameters(media_type: str) -> set[str]:
    return {part.strip().lower() for part in media_type.split(";")}
