"""What the node's parts read, as text. Paths are those inside the node, so nothing here depends on the machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.local import cgroups
from deploy.local.layout import (
    BRIDGE_ADDRESS,
    DNS_SERVICE,
    FIRST_POD_ADDRESS,
    INSIDE,
    NODE_NAME,
    PAUSE_IMAGE,
    POD_RANGE,
    SOCKET,
)

LOCAL_API_SERVER = "https://127.0.0.1:6443"


@dataclass(frozen=True, slots=True)
class User:
    """Who may talk to the API server, and as what."""

    name: str
    groups: str = ""


USERS = {  # kubeconfig: user
    "admin": User("admin", "system:masters"),
    "controller-manager": User("system:kube-controller-manager"),
    "scheduler": User("system:kube-scheduler"),
    "proxy": User("system:kube-proxy"),
    "kubelet": User(f"system:node:{NODE_NAME}", "system:nodes"),
}

CONTAINERD = f"""\
version = 2
root = "{INSIDE}/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/opt/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true        # without CAP_SYS_RESOURCE runc dies with "can't get final child's PID from pipe"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{INSIDE}/etc/cni"
"""

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": f"{INSIDE}/pki/ca.crt"},
    },
    "authorization": {"mode": "Webhook"},
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{cgroups.GROUP}",
    "failCgroupV1": False,
    "clusterDNS": [DNS_SERVICE],
    "clusterDomain": "cluster.local",
    "containerRuntimeEndpoint": f"unix://{SOCKET}",
    "failSwapOn": False,
    "tlsCertFile": f"{INSIDE}/pki/kubelet.crt",
    "tlsPrivateKeyFile": f"{INSIDE}/pki/kubelet.key",
    "evictionHard": {
        "memory.available": "100Mi",
        "nodefs.available": "1%",
        "imagefs.available": "1%",
        "nodefs.inodesFree": "1%",
    },
    # Images can't be pulled again here: never collect them.
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    "maxPods": 250,
}

PROXY = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "iptables",
    "clusterCIDR": POD_RANGE,
    "clientConnection": {"kubeconfig": f"{INSIDE}/etc/proxy.kubeconfig"},
    "conntrack": {"maxPerCore": 0, "min": 0},  # the machine's limits are not the node's to change
    "hostnameOverride": NODE_NAME,
}

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_RANGE, "rangeStart": FIRST_POD_ADDRESS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

COREFILE = f"""\
.:53 {{
  bind {BRIDGE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {INSIDE}/etc/admin.kubeconfig local
  }}
}}
"""


def tokens(secrets: Mapping[str, str]) -> str:
    """Return the API server's token file: token,user,uid,"groups"."""
    return "".join(f'{secrets[key]},{user.name},{key},"{user.groups}"\n' for key, user in USERS.items())


def kubeconfig(*, server: str, token: str, authority: str) -> str:
    """Return a kubeconfig; `authority` is the certificate file's text, base64."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": "local", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
        "current-context": "local",
    }
    return json.dumps(config, indent=1)


def files(secrets: Mapping[str, str], authority: str) -> dict[str, str]:
    """Return every file of the node's etc folder: relative path -> text. JSON is YAML."""
    kubeconfigs = {f"{key}.kubeconfig": kubeconfig(server=LOCAL_API_SERVER, token=secrets[key], authority=authority) for key in USERS}
    return {
        **kubeconfigs,
        "tokens.csv": tokens(secrets),
        "containerd.toml": CONTAINERD,
        "kubelet.yaml": json.dumps(KUBELET, indent=1),
        "proxy.yaml": json.dumps(PROXY, indent=1),
        "cni/10-pods.conflist": json.dumps(NETWORK, indent=1),
        "Corefile": COREFILE,
    }
