"""The SkyCluster that a task instance asks for, made of what the DAG author wrote. Pure.

He writes a SkyPilot task, or a whole manifest. Ours are the name, the labels and the annotations: by them the next try finds the
object. What he leaves out that ends a cluster is filled in, for with the triggerer down no hook of Airflow runs on any version, and
the cluster must still end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import yaml

from skyoperator_provider.identity import OWNER_TRY, PREFIX, Identity
from skyoperator_provider.skycluster import GROUP, KIND, VERSION

Json: TypeAlias = dict[str, Any]

API_VERSION: Final = f"{GROUP}/{VERSION}"
RETRY_REASONS: Final = (
    "NoCapacity",
    "QuotaExceeded",
    "ImagePullFailed",
    "AuthFailed",
    "ClusterLost",
    "SkyPilotError",
    "SetupFailed",
    "JobFailed",
)
"""What spec.retryOn takes (crds/skyclusters.skyoperator.dev.yaml)."""
WHEN_FINISHED: Final = ("Down", "Keep")

_SERVER_DEFAULTS: Final[Mapping[str, Any]] = {
    "secrets": [],
    "backoffLimit": 3,
    "retryOn": ["NoCapacity", "ClusterLost", "SkyPilotError"],
    "suspend": False,
    "deletionPolicy": "Down",
}
"""What kube-apiserver fills in by the CRD's defaults, and what counts as that."""
_TASK_REF_KEY: Final = "task.yaml"
_OF_THE_SERVER: Final = frozenset(
    {
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    }
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class ManifestError(ValueError):
    """What the DAG author wrote can't become a SkyCluster; says where, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an object gets that says nothing itself; from `[skyoperator]` of airflow.cfg."""

    active_deadline_seconds: int = 24 * 3600
    ttl_seconds_after_finished: int = 24 * 3600
    autostop_idle_minutes: int = 60


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator's arguments say of the spec; None says nothing."""

    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    autostop_idle_minutes: int | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    """{"HF_TOKEN": "name-of-the-secret/key"}: variables of setup and run."""
    backoff_limit: int | None = None
    retry_on: Sequence[str] | None = None
    when_finished: str | None = None


def build(
    identity: Identity,
    namespace: str,
    owner_try: int,
    *,
    task: Mapping[str, Any] | None = None,
    task_text: str | None = None,
    manifest: Mapping[str, Any] | None = None,
    options: Options | None = None,
    defaults: Defaults | None = None,
    execution_timeout_seconds: float | None = None,
) -> Json:
    """Return the object to create, of exactly one of task, task_text (YAML) and manifest. Raises ManifestError.

    What the manifest sets is kept; an option that says otherwise is refused, since one of the two is a mistake.
    activeDeadlineSeconds is the option, else the execution_timeout, else the default.
    """
    options = options or Options()
    own = _own(task, task_text, manifest)
    metadata, spec = _metadata(own, namespace), dict(own["spec"])
    _set_secrets(spec, options.secrets)
    _set_options(spec, options)
    _fill_in(spec, defaults or Defaults(), execution_timeout_seconds)
    metadata["name"], metadata["namespace"] = identity.name, namespace
    metadata["labels"] = {**_theirs(metadata, "labels"), **identity.labels}
    metadata["annotations"] = {**_theirs(metadata, "annotations"), **identity.annotations, **identity.origin, OWNER_TRY: str(owner_try)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": _plain(metadata, "metadata"), "spec": _plain(spec, "spec")}


def parse(text: str, what: str) -> Json:
    """Return the object of a YAML text with one document; `what` names the text in messages. Raises ManifestError.

    Dates stay text, as SkyPilot makes it of them.
    """
    documents = _loaded(text, what)
    if len(documents) > 1:
        raise ManifestError(f"{what} holds {len(documents)} YAML documents; write one SkyCluster for each task of the DAG")
    if not documents or not isinstance(documents[0], dict):
        raise ManifestError(f"{what} must hold one object, with keys such as run and resources")
    try:
        return {_key(key, what): _plain(value, f"{what}: {key}") for key, value in documents[0].items()}
    except RecursionError as error:
        raise ManifestError(f"{what} is nested too deep, or an alias in it holds itself") from error


def namespace_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the namespace that a manifest names."""
    metadata = manifest.get("metadata")
    found = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    return str(found) if found else None


def has_run(manifest: Mapping[str, Any]) -> bool | None:
    """Tell whether the task has a job, and so comes to an end; None if it is in a ConfigMap, and can't be seen here."""
    task = manifest["spec"].get("task")
    if task is None:
        return None
    run = task.get("run")
    return isinstance(run, str) and bool(run.strip())


def specs_differ(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of spec in which two objects differ; what the server filled in is no difference."""
    one, other = _comparable(found["spec"]), _comparable(wanted["spec"])
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def masked_values(manifest: Mapping[str, Any], masker: Callable[[str], str]) -> list[str]:
    """Return the paths of the author's values in which the masker finds a secret, such as spec.task.envs.HF_TOKEN.

    Those are the task's, and the labels and annotations; not the ones that tell whose the object is, since a password may well be a word
    of a DAG's name. Only values are asked about. By their names Airflow would take TOKENIZERS_PARALLELISM for a secret.
    """
    found = [*_texts(manifest["spec"].get("task"), "spec.task")]
    for key in ("labels", "annotations"):
        theirs = {name: value for name, value in _theirs(manifest.get("metadata") or {}, key).items() if not name.startswith(f"{PREFIX}/")}
        found += _texts(theirs, f"metadata.{key}")
    return [path for path, text in found if masker(text) != text]


def _loaded(text: str, what: str) -> list[object]:
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # A value that is not what its tag says, as `!!int ""`, is any of these to PyYAML.
        raise ManifestError(f"{what} is no YAML: {error}") from error


def _own(task: Mapping[str, Any] | None, task_text: str | None, manifest: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what was written as a manifest."""
    given = {"task": task, "task_file": task_text, "manifest": manifest}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ManifestError(f"Give exactly one of task, task_file and manifest, not {' and '.join(names) or 'none'}")
    if manifest is not None:
        return _checked_manifest(manifest)
    return {"spec": {"task": _checked_task(parse(task_text, "task_file") if task_text is not None else task, names[0])}}


def _checked_task(task: object, what: str) -> Mapping[str, Any]:
    if not isinstance(task, Mapping):
        raise ManifestError(f"{what} must be an object, with keys such as run and resources, not {type(task).__name__}")
    if "apiVersion" in task or "kind" in task:
        raise ManifestError(f"{what} is a manifest (kind {task.get('kind')}), not a SkyPilot task; give it as manifest=")
    return task


def _checked_manifest(manifest: object) -> Mapping[str, Any]:
    if not isinstance(manifest, Mapping):
        raise ManifestError(
            f"manifest must be an object, not {type(manifest).__name__}; for YAML text use skyoperator_provider.manifest.parse"
        )
    if (manifest.get("apiVersion"), manifest.get("kind")) != (API_VERSION, KIND):
        said = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
        raise ManifestError(f"manifest must be a {KIND} of {API_VERSION}, not {said}; a SkyPilot task goes into task=")
    if unknown := sorted(map(str, manifest.keys() - {"apiVersion", "kind", "metadata", "spec", "status"})):
        raise ManifestError(f"manifest has no key {', '.join(unknown)}; there are apiVersion, kind, metadata and spec")
    for key in ("metadata", "spec"):
        if not isinstance(manifest.get(key) or {}, Mapping):
            raise ManifestError(f"manifest.{key} must be an object, not {type(manifest[key]).__name__}")
    if not manifest.get("spec"):
        raise ManifestError("manifest has no spec; write spec.task or spec.taskRef")
    return manifest


def _metadata(own: Mapping[str, Any], namespace: str) -> Json:
    """Return the author's metadata without what the server sets. Raises ManifestError for what is ours."""
    metadata = own.get("metadata") or {}
    for key in ("name", "generateName"):
        if key in metadata:
            raise ManifestError(
                f"manifest.metadata.{key} is {metadata[key]!r}; leave it out: the name is made from the task instance, so that a retry "
                "finds the object of the try before. The operator returns it, and kubectl get skyc -l airflow.skyoperator.dev/task-id=... "
                "finds it"
            )
    if metadata.get("namespace") not in (None, namespace):
        raise ManifestError(f"manifest.metadata.namespace is {metadata['namespace']!r}, but the operator's is {namespace!r}; remove one")
    for key in ("labels", "annotations"):
        if ours := sorted(name for name in _theirs(metadata, key) if str(name).startswith(f"{PREFIX}/")):
            raise ManifestError(f"manifest.metadata.{key} has {', '.join(ours)}; what begins with {PREFIX}/ is set by the operator")
    return {key: value for key, value in metadata.items() if key not in _OF_THE_SERVER}


def _theirs(metadata: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = metadata.get(key) or {}
    if not isinstance(found, Mapping):
        raise ManifestError(f"manifest.metadata.{key} must be an object, not {type(found).__name__}")
    return found


def _set_secrets(spec: Json, secrets: Mapping[str, str]) -> None:
    """Add the secrets to those that the spec has."""
    wanted = [_secret(name, reference) for name, reference in secrets.items()]
    if not wanted:
        return
    found = list(spec.get("secrets") or [])
    for secret in wanted:
        same = next((other for other in found if isinstance(other, Mapping) and other.get("name") == secret["name"]), None)
        if same is None:
            found.append(secret)
        elif same != secret:
            raise ManifestError(
                f"The secret {secret['name']} is in secrets= and, with another source, in manifest.spec.secrets; keep one of them"
            )
    spec["secrets"] = found


def _secret(name: str, reference: str) -> Json:
    """Return the entry of spec.secrets. Raises ManifestError, which repeats nothing that may be the secret itself."""
    if not _VARIABLE.fullmatch(str(name)):
        raise ManifestError(f"secrets: {name!r} is no name of an environment variable: letters, digits and _")
    secret, _, key = reference.partition("/") if isinstance(reference, str) else ("", "", "")
    if not (_SECRET_NAME.fullmatch(secret) and _SECRET_KEY.fullmatch(key)):
        raise ManifestError(
            f'secrets: {name} must say where the value is, as "name-of-the-secret/key" of a Kubernetes Secret in the object\'s namespace; '
            "the value itself has no place in a manifest"
        )
    return {"name": name, "secretKeyRef": {"name": secret, "key": key}}


def _set_options(spec: Json, options: Options) -> None:
    """Set what the operator's arguments say. Raises ManifestError if the manifest says otherwise."""
    for key, value in _wanted(options):
        if spec.get(key) not in (None, value):
            raise ManifestError(f"manifest.spec.{key} is {spec[key]!r}, and the operator's argument for it {value!r}; remove one of them")
        spec[key] = value


def _wanted(options: Options) -> Iterator[tuple[str, Any]]:
    yield from _given("activeDeadlineSeconds", options.active_deadline_seconds, at_least=1)
    yield from _given("ttlSecondsAfterFinished", options.ttl_seconds_after_finished, at_least=0)
    yield from _given("backoffLimit", options.backoff_limit, at_least=0, at_most=1000)
    for _, minutes in _given("autostop_idle_minutes", options.autostop_idle_minutes, at_least=1, at_most=525600):
        yield "autostop", {"idleMinutes": minutes}
    if options.retry_on is not None:
        yield "retryOn", _reasons(options.retry_on)
    if options.when_finished is not None:
        if options.when_finished not in WHEN_FINISHED:
            raise ManifestError(f"when_finished must be Down or Keep, not {options.when_finished!r}")
        yield "whenFinished", options.when_finished


def _given(key: str, value: int | None, *, at_least: int, at_most: float = math.inf) -> Iterator[tuple[str, int]]:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
        limits = f"of at least {at_least}" if at_most == math.inf else f"from {at_least} to {at_most}"
        raise ManifestError(f"{key} must be a whole number {limits}, not {value!r}")
    yield key, value


def _reasons(retry_on: Sequence[str]) -> list[str]:
    if isinstance(retry_on, str) or any(reason not in RETRY_REASONS for reason in retry_on):
        raise ManifestError(f"retry_on must be a list out of {', '.join(RETRY_REASONS)}, not {retry_on!r}")
    return list(dict.fromkeys(retry_on))


def _fill_in(spec: Json, defaults: Defaults, execution_timeout_seconds: float | None) -> None:
    """Set what ends the cluster, whatever becomes of Airflow.

    With deletionPolicy Orphan no TTL: the CRD refuses it, since it would leave a cluster that nobody owns.
    """
    deadline = defaults.active_deadline_seconds if execution_timeout_seconds is None else max(1, math.ceil(execution_timeout_seconds))
    filled: Json = {"activeDeadlineSeconds": deadline, "autostop": {"idleMinutes": defaults.autostop_idle_minutes}}
    if spec.get("deletionPolicy") != "Orphan":
        filled["ttlSecondsAfterFinished"] = defaults.ttl_seconds_after_finished
    elif spec.get("ttlSecondsAfterFinished") is not None:
        raise ManifestError("ttlSecondsAfterFinished with deletionPolicy Orphan would leave a cluster that nobody owns; remove one of them")
    for key, value in filled.items():
        if spec.get(key) is None:
            spec[key] = value


def _comparable(spec: Mapping[str, Any]) -> Json:
    """Return a spec with the server's defaults in it, and with its sets in one order."""
    whole = {**_SERVER_DEFAULTS, **{key: value for key, value in spec.items() if value is not None}}
    whole["retryOn"] = sorted(whole["retryOn"])
    whole["secrets"] = sorted(whole["secrets"], key=lambda secret: str(secret.get("name")))
    if "taskRef" in whole:
        whole["taskRef"] = {"key": _TASK_REF_KEY, **whole["taskRef"]}
    return whole


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield each value below as the text that the job would see, with its path."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _texts(below, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from _texts(below, f"{path}[{index}]")
    elif value is not None and not isinstance(value, bool):
        yield path, str(value)


def _plain(value: Any, path: str) -> Any:  # noqa: ANN401 - JSON in, JSON out
    """Return a copy that JSON can hold. Raises ManifestError with the path of what it can't."""
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(below, f"{path}.{key}") for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below, f"{path}[{index}]") for index, below in enumerate(value)]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ManifestError(f"{path} is {value!r} ({type(value).__name__}), which no manifest can hold; write text or a finite number")


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise ManifestError(f"{path} has the key {key!r}, a {type(key).__name__}; put it in quotes")
    return key


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would drop the first, and leaves dates as they are written."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
