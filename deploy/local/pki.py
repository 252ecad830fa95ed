"""The cluster's certificates, made with openssl: one authority, good for a year, that signs all others."""

from pathlib import Path

from deploy.local.commands import Shell
from deploy.local.layout import API_SERVICE, BRIDGE_ADDRESS, NODE_ADDRESS, NODE_NAME

DAYS = "365"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
SERVICE_NAMES = [f"DNS:{name}" for name in ("kubernetes", "kubernetes.default", "kubernetes.default.svc")]
ADDRESSES = ("127.0.0.1", API_SERVICE, BRIDGE_ADDRESS, NODE_ADDRESS)
LEAVES = {  # file: (subject, alternative names)
    "apiserver": (
        "/CN=kube-apiserver",
        ",".join(["DNS:localhost", *SERVICE_NAMES, *(f"IP:{address}" for address in ADDRESSES)]),
    ),
    "kubelet-client": ("/O=system:masters/CN=apiserver-kubelet-client", "DNS:apiserver"),
    "front-proxy": ("/CN=front-proxy", "DNS:front-proxy"),
    "kubelet": (f"/CN={NODE_NAME}", f"DNS:{NODE_NAME},IP:127.0.0.1,IP:{BRIDGE_ADDRESS}"),
}


def create(folder: Path, shell: Shell) -> None:
    """Write ca, one pair per leaf, and the key pair that signs service-account tokens. Raises Failure."""
    folder.mkdir(parents=True, mode=0o700)
    authority = ("-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-days", DAYS, "-subj", "/CN=skyoperator-local")
    shell.run("openssl", "req", "-x509", *NEW_KEY, *authority)
    for name, (subject, names) in LEAVES.items():
        _sign(folder, name, subject, names, shell)
    shell.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "sa.key")
    shell.run("openssl", "ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")


def _sign(folder: Path, name: str, subject: str, names: str, shell: Shell) -> None:
    key, request, extensions = (folder / f"{name}.{ending}" for ending in ("key", "csr", "ext"))
    extensions.write_text(f"subjectAltName={names}\n")
    shell.run("openssl", "req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", subject)
    ca = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial")
    shell.run("openssl", "x509", "-req", "-in", request, *ca, "-days", DAYS, "-out", folder / f"{name}.crt", "-extfile", extensions)
