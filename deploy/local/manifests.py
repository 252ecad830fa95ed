"""What every cluster has before anybody's objects: DNS, which runs on the node itself, and storage for any claim."""

import json

from deploy.local.layout import BRIDGE_ADDRESS, DNS_SERVICE, PROVISIONER

PORTS = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]

DNS = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
    "spec": {"clusterIP": DNS_SERVICE, "ports": PORTS},
}

DNS_ENDPOINTS = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "kube-dns-node",
        "namespace": "kube-system",
        "labels": {"kubernetes.io/service-name": "kube-dns"},
    },
    "addressType": "IPv4",
    "endpoints": [{"addresses": [BRIDGE_ADDRESS], "conditions": {"ready": True}}],
    "ports": PORTS,
}

STORAGE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}


def text() -> str:
    """Return all of them, for kubectl apply."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [DNS, DNS_ENDPOINTS, STORAGE]})
