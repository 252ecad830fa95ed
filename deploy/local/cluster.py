"""The cluster as its user sees it: up, down, and how it is."""

import base64
import json
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import cgroups, configs, manifests, node, pki
from deploy.local.commands import Failure, Shell, locked, tail
from deploy.local.layout import API_SERVER, NODE_NAME, RECORD, Layout

START_SECONDS = 120
READY_WHEN = (  # a pod that is made right after cluster-up must be let in
    (f"node/{NODE_NAME}", "create"),
    (f"node/{NODE_NAME}", "condition=Ready"),
    ("serviceaccount/default", "create"),
)


@dataclass(frozen=True, slots=True)
class Health:
    """What `kubenode init` last wrote about itself.

    Attributes:
        ready: Every part was started, each after those it needs.
        doing: The step of the start that is under way.
        error: Why the start ended.
        parts: Part -> "running", or how it ended.
        restarts: Part -> how often it died and was started again.
    """

    ready: bool = False
    doing: str = ""
    error: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)

    @property
    def dead(self) -> dict[str, str]:
        """The parts that ended."""
        return {part: how for part, how in self.parts.items() if how != "running"}


def health(layout: Layout) -> Health:
    """Return the node's own report; an empty one if it wrote none yet."""
    try:
        return Health(**json.loads((layout.state / "status.json").read_text()))
    except OSError:
        return Health()


def is_up(layout: Layout) -> bool:
    """Tell whether our cluster runs and is well. Raises Failure if another one runs on this machine."""
    found = health(layout)
    return node.own(layout) is not None and found.ready and not found.dead and layout.kubeconfig.exists()


def up(layout: Layout, shell: Shell) -> None:
    """Start a new, empty cluster; what is left of an unwell or crashed one is cleared first. Raises Failure."""
    with locked(RECORD.with_suffix(".lock")):  # the cache's lock keeps out those of one cache only
        _up(layout, shell)


def _up(layout: Layout, shell: Shell) -> None:
    _down(layout, shell)
    layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = _configure(layout, shell)
    started = node.start(layout, shell)
    try:
        _wait_until_started(layout, started)
        authority = base64.b64encode((layout.state / "pki/ca.crt").read_bytes()).decode()
        _write_private(layout.kubeconfig, configs.kubeconfig(server=API_SERVER, token=token, authority=authority))
        kubectl(layout, shell, "create", "--validate=false", "--filename", "-", stdin=manifests.text())
        for thing, condition in READY_WHEN:
            kubectl(layout, shell, "wait", thing, f"--for={condition}", "--timeout=60s")
    except BaseException:
        node.stop(started, shell)
        layout.kubeconfig.unlink(missing_ok=True)
        raise


def _configure(layout: Layout, shell: Shell) -> str:
    """Write everything the node reads and return the administrator's token. Certificates and tokens are new each time."""
    for name in ("pki", "etc"):
        shutil.rmtree(layout.state / name, ignore_errors=True)
    pki.create(layout.state / "pki", shell)
    tokens = {user: secrets.token_hex(24) for user in configs.USERS}
    authority = base64.b64encode((layout.state / "pki/ca.crt").read_bytes()).decode()
    for name, text in configs.files(tokens, authority).items():
        _write_private(layout.state / "etc" / name, text)
    return tokens["admin"]


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _wait_until_started(layout: Layout, started: node.Node) -> None:
    def decided() -> bool:
        found = health(layout)
        return found.ready or bool(found.error) or not started.process.is_alive()

    in_time = node.wait_for(decided, START_SECONDS)
    found = health(layout)
    if not found.ready or not in_time:
        step = found.error.partition(":")[0] or found.doing or "node"
        raise Failure(
            f"The node did not start: {found.error or 'at ' + step + ' it ended or took too long'}. "
            f"The end of its log:\n{tail(_log_of(layout, found.dead, step))}"
        )


def _log_of(layout: Layout, dead: dict[str, str], step: str) -> Path:
    candidates = [*dead, step, "node"]
    return next((log for name in candidates if (log := layout.node_logs / f"{name}.log").exists()), layout.node_logs / "node.log")


def down(layout: Layout, shell: Shell) -> None:
    """End the cluster and all its objects; its images stay. Raises Failure if another cluster runs on this machine."""
    with locked(RECORD.with_suffix(".lock")):
        _down(layout, shell)


def _down(layout: Layout, shell: Shell) -> None:
    node.stop(node.own(layout), shell)
    layout.kubeconfig.unlink(missing_ok=True)
    for name in node.FRESH:
        shell.run("rm", "-rf", layout.state / name)


def kubectl(layout: Layout, shell: Shell, *words: str, stdin: str = "") -> str:
    """Run kubectl as administrator and return its output. Raises Failure."""
    return shell.run(layout.bin / "kubectl", "--kubeconfig", layout.kubeconfig, *words, stdin=stdin)


def report(layout: Layout, shell: Shell) -> tuple[list[str], bool]:
    """Return lines that tell how the cluster is, and whether it is well."""
    if node.own(layout) is None:
        return ["cluster     down (start it with: python -m deploy.local cluster-up)"], False
    found = health(layout)
    if not found.ready or found.dead:
        return [_died(layout, found.dead) if found.dead else f"cluster     starting: {found.doing}"], False
    ready = kubectl(layout, shell, "get", "node", NODE_NAME, "--output", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
    pods = kubectl(layout, shell, "get", "pods", "--all-namespaces", "--output", "name").split()
    memory = cgroups.memory_bytes()
    lines = [
        f"node        {NODE_NAME} {'Ready' if ready == 'True' else 'not ready'}, {len(found.parts)} parts running",
        f"pods        {len(pods)}",
        f"memory      {f'{memory / 2**30:.1f} GiB' if memory is not None else 'unknown'} (node and pods, without page cache)",
        f"kubeconfig  {layout.kubeconfig}",
        f"network     no way out of this machine; NetworkPolicies are {'' if 'policies' in found.parts else 'not '}enforced",
    ]
    return lines, ready == "True"


def _died(layout: Layout, dead: dict[str, str]) -> str:
    words = [f"{part} {how}. The end of its log:\n{tail(layout.node_logs / f'{part}.log')}" for part, how in dead.items()]
    return "\n".join([*words, "Start the cluster anew with: python -m deploy.local cluster-up"])
