"""Which tasks may be launched: an allow-list of keys at every level, and what their values may be.

A task comes from whoever may create a SkyCluster and is read by a server that holds every cloud credential, so what is not
known to be harmless is refused. docs/task.md is the same list for users; a test holds the two together.
"""

from collections.abc import Collection, Iterator, Mapping

from skyoperator.task.allowed import Policy
from skyoperator.task.fields import anything, boolean, entries, of, positive, refused, table, text, whole
from skyoperator.task.git import ENVS_OF_CREDENTIALS, ENVS_OF_REPOSITORY, workdir
from skyoperator.task.infra import outside
from skyoperator.task.mounts import WORKDIR_ON_NODE, file_mounts, volumes
from skyoperator.task.problems import JSON, Field, Problem, refuse, under
from skyoperator.task.resources import alternatives, resources
from skyoperator.task.secret_envs import ENV_NAME, ill_named, unfit
from skyoperator.task.shape import internal_keys, plain, unreadable
from skyoperator.task.variables import env_values, filled, left_over

ROOT = "spec.task"

MAX_SCRIPT_BYTES = 48 * 1024  # well under the 100 KiB that SkyPilot passes on as one argument


def check(task: Mapping[str, JSON], *, policy: Policy | None = None, secret_names: Collection[str] = ()) -> None:
    """Raise TaskRejected with every problem of the task and of the names of its secrets; return if it may be launched."""
    refuse(unreadable(ROOT, task))
    allowed = policy or Policy()
    wanted = normal(task)
    whole_task = filled(wanted)
    refuse(
        (
            *internal_keys(ROOT, whole_task),
            *_fields(allowed)(ROOT, whole_task),
            *left_over(ROOT, wanted),
            *outside(ROOT, whole_task, allowed),
            *_together(ROOT, whole_task),
            *ill_named(whole_task, secret_names),
        )
    )


def check_values(task: Mapping[str, JSON], secrets: Mapping[str, str]) -> None:
    """Raise TaskRejected if a secret's value can't be an environment variable, or is too long beside the task; never show it.

    The task itself need not be sound. To be asked before anything is written down: `render` would refuse the same later.
    """
    refuse(unfit(secrets))
    refuse(_too_long(ROOT, task, secrets))


def normal(task: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the task as plain data without the empty keys that SkyPilot skips too (sky/utils/common_utils.py:920).

    A key that is not the user's to write is kept, to be refused even when it is empty.
    """
    copy = _without_empty(plain(task))
    if isinstance(found := copy.get("resources"), dict):
        copy["resources"] = found = _without_empty(found)
        for key, index, item in alternatives(found):
            listed = found[key]
            assert isinstance(listed, list)
            listed[index] = _without_empty(item)
    return copy


def _without_empty(value: JSON) -> dict[str, JSON]:
    assert isinstance(value, Mapping)
    return {key: inner for key, inner in value.items() if inner is not None or key.startswith("_")}


def _env_name(path: str, value: JSON) -> Iterator[Problem]:
    key = str(value)
    if not ENV_NAME.fullmatch(key):
        yield Problem(path, "is no name of an environment variable: letters, digits and _")
    elif key.startswith("SKYPILOT_DOCKER_"):
        yield Problem(path, "a registry password here can be read by all who read this object; use spec.secrets")
    elif key.startswith("SKYPILOT_"):
        yield Problem(path, "SkyPilot sets the variables that begin with SKYPILOT_; choose another name")


def _script(path: str, value: JSON) -> Iterator[Problem]:
    if not str(value).strip():
        yield Problem(path, "is empty; leave it out")


def _one_size(path: str, value: JSON) -> Iterator[Problem]:
    yield from entries(anything, of("a size in GB", {"integer": positive, "number": positive}))(path, value)
    if isinstance(value, Mapping) and len(value) != 1:
        yield Problem(path, "must name one URI and its size in GB")


script = of("a shell script", {"string": _script})
env_value = of(
    "text, a number or true or false",
    {"string": anything, "integer": anything, "number": anything, "boolean": anything},
)
display_name = text(r"(?=.{1,63}$)[A-Za-z0-9]+(?:[._-]{1,2}[A-Za-z0-9]+)*", "at most 63 letters, digits and single ._- between them")

_MANAGED = "belongs to SkyPilot's managed jobs and services, which a SkyCluster is not; remove it"
_IGNORED = "is for managed jobs, and SkyPilot ignores it on a cluster; remove it, or ask the installer"
_INTERNAL = "is passed between SkyPilot's own client and server; remove it"
_REFUSED: Mapping[str, Field] = {
    "secrets": refused("PolicyDenied", "a value here can be read by all who read this object; use spec.secrets"),
    "managed_secrets": refused("PolicyDenied", "hands out secrets of the API server's users; use spec.secrets"),
    "config": refused("PolicyDenied", "changes the API server's settings, pods and identities among them; ask the installer"),
    "event_callback": refused("PolicyDenied", _IGNORED),
    "api_server_access": refused("PolicyDenied", _IGNORED),
    "service": refused("PolicyDenied", _MANAGED),
    "pool": refused("PolicyDenied", _MANAGED),
    "inputs": refused("PolicyDenied", "only weighs costs when SkyPilot chooses a cloud; remove it, or ask the installer"),
    "outputs": refused("PolicyDenied", "only weighs costs when SkyPilot chooses a cloud; remove it, or ask the installer"),
    "file_mounts_mapping": refused("PolicyDenied", _INTERNAL),
    "volume_mounts": refused("PolicyDenied", f"{_INTERNAL[:-9]}use volumes"),
}


# What a policy can let through: nothing that SkyPilot reads from its own client only, and nothing whose name an object needs for itself.
PASSED_ON_REQUEST: Mapping[str, Field] = {
    "config": of("an object", {"object": anything}),
    "event_callback": script,
    "api_server_access": boolean,
    "inputs": of("an object with one URI and its size in GB", {"object": _one_size}),
    "outputs": of("an object with one URI and its size in GB", {"object": _one_size}),
}


def _fields(policy: Policy) -> Field:
    let_through = {key: field for key, field in PASSED_ON_REQUEST.items() if key in policy.allow_task_keys}
    return table(
        {
            "name": display_name,
            "workdir": workdir,
            "num_nodes": whole(1),
            "resources": resources,
            "envs": entries(_env_name, env_value),
            "file_mounts": file_mounts(policy),
            "volumes": volumes(policy),
            "setup": script,
            "run": script,
            **let_through,
        },
        {key: field for key, field in _REFUSED.items() if key not in let_through},
    )


def _together(path: str, task: Mapping[str, JSON]) -> Iterator[Problem]:
    """Judge what only the task as a whole can show."""
    if "workdir" in task:
        yield from _beside_workdir(path, task)
    yield from _too_long(path, task)


def _too_long(path: str, task: Mapping[str, JSON], secrets: Mapping[str, str] | None = None) -> Iterator[Problem]:
    """Yield a problem if what becomes one script on the node is longer than SkyPilot hands over in one piece."""
    variables = {**env_values(task), **(secrets or {})}
    scripts = [script for script in (task.get("setup"), task.get("run")) if isinstance(script, str)]
    size = sum(len(piece.encode(errors="surrogatepass")) for piece in (*scripts, *variables, *variables.values()))
    if size > MAX_SCRIPT_BYTES:
        what = "setup, run, envs and secrets" if secrets else "setup, run and envs"
        yield Problem(
            path, f"{what} are {size} bytes together, more than {MAX_SCRIPT_BYTES}; keep the script in a repository and set workdir"
        )


def _beside_workdir(path: str, task: Mapping[str, JSON]) -> Iterator[Problem]:
    for key in env_values(task):
        where = under(under(path, "envs"), key)
        if key in ENVS_OF_REPOSITORY:
            yield Problem(where, "is set from workdir; remove it")
        elif key in ENVS_OF_CREDENTIALS:
            yield Problem(where, "can be read by all who read this object; use spec.secrets")
    mounts = task.get("file_mounts")
    if isinstance(mounts, Mapping) and WORKDIR_ON_NODE in mounts:
        yield Problem(under(under(path, "file_mounts"), WORKDIR_ON_NODE), "is where workdir goes; choose another path")
