"""What may stand under `file_mounts` and `volumes`.

A source without a scheme is a path on the API server, whose service account token and state database lie there. A source
with one is a bucket that SkyPilot reads with the server's credentials, some of it in a shell on the server itself
(`gsutil ls -d {url}` with shell=True, sky/cloud_stores.py:168-179): so the policy names the buckets, and no character
that a shell reads gets through.
"""

import re
from collections.abc import Iterator, Mapping

from skyoperator.task.allowed import Policy
from skyoperator.task.fields import boolean, entries, of, one_of, refused, table, text, whole
from skyoperator.task.problems import JSON, Field, Problem, show, under

WORKDIR_ON_NODE = "~/sky_workdir"  # sky/skylet/constants.py:29
BUCKET_SCHEMES = ("s3", "gs", "r2", "cos", "oci", "nebius", "cw", "vastdata", "hf", "https")

_SEGMENT = r"[A-Za-z0-9._@+=:%,-]+"
_URI = re.compile(rf"({'|'.join(BUCKET_SCHEMES)})://[A-Za-z0-9][A-Za-z0-9._-]*(?:/{_SEGMENT})*")
_AZURE = re.compile(r"https://[a-z0-9]+\.blob\.core\.windows\.net/[A-Za-z0-9$-]+(?:/.*)?")
_TARGET = re.compile(r"(?:~/|/)?[A-Za-z0-9._@+=,-]+(?:/[A-Za-z0-9._@+=,-]+)*")
_SIZE = text(r"[0-9]+[bkmgtpBKMGTP]?", "a size, such as 64M")
_DURATION = text(
    r"(?:[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:ms|[smhdwMy]))+|[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)",
    "a duration, such as 5s",
)


def file_mounts(policy: Policy) -> Field:
    """Accept paths on the nodes, each with a bucket that the policy allows."""
    source = _source(policy)
    return entries(_target, of("a bucket URI or an object", {"string": source, "object": _storage(source)}))


def volumes(policy: Policy) -> Field:
    """Accept absolute paths on the nodes, each with a volume that the policy allows."""

    def allowed(path: str, value: JSON) -> Iterator[Problem]:
        if value not in policy.allowed_volumes:
            yield Problem(path, f"volume {show(value)} is not among the allowed volumes; ask the installer", "PolicyDenied")

    own = "creates or binds storage of the node, which no policy here allows; name an existing volume"
    mount = table(
        {
            "name": of("the name of a volume", {"string": allowed}),
            "sub_path": text(r"(?!\.\.?(?:/|$))[A-Za-z0-9._-]+(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._-]+)*", "a path inside the volume"),
        },
        {key: refused("PolicyDenied", own) for key in ("size", "type", "labels", "config", "host_path", "mode", "infra")},
    )
    return entries(_absolute, of("a volume or an object with its name", {"string": allowed, "object": _named(mount)}))


def _named(mount: Field) -> Field:
    def field(path: str, value: JSON) -> Iterator[Problem]:
        yield from mount(path, value)
        if isinstance(value, Mapping) and "name" not in value:
            yield Problem(path, "names no volume; add name")

    return field


def _source(policy: Policy) -> Field:
    def field(path: str, value: JSON) -> Iterator[Problem]:
        uri = str(value)
        if "://" not in uri:
            yield Problem(path, f"{show(uri)} is a path on the API server, not yours; name a bucket or use workdir.url", "PolicyDenied")
        elif misspelt := [*bucket(path, uri)]:
            yield from misspelt
        elif not any(uri == root or uri.startswith(f"{root.rstrip('/')}/") for root in policy.allowed_buckets):
            yield Problem(
                path,
                f"{show(uri)} would be read with the API server's credentials and is not among the allowed buckets; ask the installer",
                "PolicyDenied",
            )

    return field


def bucket(path: str, value: JSON) -> Iterator[Problem]:
    """Accept the URI of a bucket, or of what is in it."""
    if not _is_bucket(str(value)):
        yield Problem(path, f"{show(value)} must be a bucket URI ({', '.join(BUCKET_SCHEMES)}) of plain characters")


def _is_bucket(uri: str) -> bool:
    if not _URI.fullmatch(uri) or {".", ".."} & set(uri.split("/")):
        return False
    return not uri.startswith("https:") or bool(_AZURE.fullmatch(uri))


def _target(path: str, value: JSON) -> Iterator[Problem]:
    target = str(value)
    if not _TARGET.fullmatch(target) or {".", ".."} & set(target.split("/")) or target.startswith("-"):
        yield Problem(path, f"{show(target)} must be a path on the node of plain characters, without .. or a / at its end")


def _absolute(path: str, value: JSON) -> Iterator[Problem]:
    yield from _target(path, value)
    if not str(value).startswith(("/", "~/")):
        yield Problem(path, f"{show(value)} must begin with / or ~/")


_CACHE = table(
    {
        "transfers": whole(1),
        "buffer_size": _SIZE,
        "vfs_cache_max_size": _SIZE,
        "vfs_cache_max_age": _DURATION,
        "vfs_read_ahead": _SIZE,
        "vfs_read_chunk_size": _SIZE,
        "vfs_read_chunk_streams": whole(0),
        "vfs_write_back": _DURATION,
        "read_only": boolean,
    }
)
_MOUNT = table(
    {"read_only": boolean},
    {"hf_mount_args": refused("PolicyDenied", "passes arguments to a command as they are; remove it")},
)
_DISK = "describes a disk of the server's cloud account, which no policy here allows; remove it"
_BUCKET_OF_ITS_OWN = "makes, renames or deletes a bucket with the API server's credentials; name an existing one as source"


def _storage(source: Field) -> Field:
    known = table(
        {
            "source": of("one bucket URI; a list can only name files of the API server", {"string": source}),
            "mode": one_of("mount", "copy", "mount_cached"),
            "type": one_of("model_checkpoint_ro", "model_checkpoint_rw", "dataset_ro", "dataset_rw"),
            "config": table(
                {"mount": _MOUNT, "mount_cached": _CACHE},
                {key: refused("PolicyDenied", _DISK) for key in ("disk_size", "disk_tier", "storage_type", "attach_mode")},
            ),
        },
        {key: refused("PolicyDenied", _BUCKET_OF_ITS_OWN) for key in ("name", "store", "persistent")},
    )

    def field(path: str, value: JSON) -> Iterator[Problem]:
        yield from known(path, value)
        if isinstance(value, Mapping):
            yield from _storage_together(path, value)

    return field


def _storage_together(path: str, value: Mapping[str, JSON]) -> Iterator[Problem]:
    if "source" not in value:
        yield Problem(path, "names no bucket; add source")
    mode = str(value.get("mode", "mount")).lower()
    config = value.get("config")
    configured = set(config) if isinstance(config, Mapping) else set()
    if "type" in value and mode != "mount_cached":
        yield Problem(under(path, "type"), "goes with mode MOUNT_CACHED only")
    for key in sorted(configured & {"mount", "mount_cached"} - {mode}):
        yield Problem(under(under(path, "config"), key), f"goes with mode {key.upper()} only")
