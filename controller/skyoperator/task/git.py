"""`workdir: {url, ref}`: which repositories may be cloned, and the variables that make SkyPilot clone them.

SkyPilot's command line looks the repository up and sets these variables; the API server does nothing with `workdir` over
REST, and without GIT_URL its git_clone.sh says so and succeeds, leaving the job in an empty directory
(sky/task.py:1940-1976, sky/utils/git_clone.sh). The script runs on the nodes and pastes the ref into a command line
without quotes.
"""

import re
from collections.abc import Iterator, Mapping

from skyoperator.task.fields import of, refused, table
from skyoperator.task.problems import JSON, Field, Problem, show

ENVS_OF_REPOSITORY = ("GIT_URL", "GIT_BRANCH", "GIT_TAG", "GIT_COMMIT_HASH")
ENVS_OF_CREDENTIALS = ("GIT_TOKEN", "GIT_SSH_KEY")
IN_CLUSTER = (".svc", ".svc.cluster.local")

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
_PATH = r"[A-Za-z0-9._~+-]+(?:/[A-Za-z0-9._~+-]+)*"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_URL = re.compile(rf"(https?|ssh)://(?:({_USER})@)?({_HOST})(?::[0-9]{{1,5}})?/({_PATH})/?")
_SCP = re.compile(rf"({_USER})@({_HOST}):/?({_PATH})/?")
_WITH_CREDENTIALS = re.compile(r"(?!ssh:)[^:/]*://[^/]*@|ssh://[^/]*:[^/]*@")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_REF = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock$|/\.|\.$|/$))[A-Za-z0-9_][A-Za-z0-9._/+@-]*")


def _url(path: str, value: JSON) -> Iterator[Problem]:
    """Judge a URL without ever showing it, since it may hold a token."""
    url = str(value)
    found = _URL.fullmatch(url)
    if _WITH_CREDENTIALS.match(url):
        yield Problem(path, "holds credentials; remove them and put the token into spec.secrets as GIT_TOKEN")
    elif not (found or _SCP.fullmatch(url)):
        yield Problem(path, "must be https://host/path, ssh://user@host/path or user@host:path")
    elif found and found[1] == "http" and not found[3].lower().endswith(IN_CLUSTER):
        yield Problem(path, "is not encrypted; use https (http is for services inside the Kubernetes cluster only)")


def _ref(path: str, value: JSON) -> Iterator[Problem]:
    if not _REF.fullmatch(str(value)):
        yield Problem(path, f"{show(value)} must be a branch, a tag or a commit, of letters, digits and ._/+@-")


_REPOSITORY = table({"url": of("the URL of a repository", {"string": _url}), "ref": of("text", {"string": _ref})})


def _repository(path: str, value: JSON) -> Iterator[Problem]:
    yield from _REPOSITORY(path, value)
    if isinstance(value, Mapping) and "url" not in value:
        yield Problem(path, "names no repository; add url")


workdir: Field = of(
    "an object with url and ref",
    {
        "object": _repository,
        "string": refused("PolicyDenied", "is a path on the API server, not yours; use workdir: {url, ref}"),
    },
)


def environment(repository: Mapping[str, JSON]) -> dict[str, str]:
    """Return the variables that make git_clone.sh fetch a checked `workdir`.

    A commit, even an abbreviated one, takes a full clone and a checkout, which also finds a branch or tag of such a name
    (20240101); any other name is cloned alone, which works for branches and for tags. `refs/heads/` and `refs/tags/` say
    which is meant where a cluster is kept and updated.
    """
    ref = str(repository.get("ref", ""))
    return {"GIT_URL": full_url(str(repository["url"])), **_ref_variable(ref)}


def _ref_variable(ref: str) -> dict[str, str]:
    if not ref:
        return {}
    if ref.startswith("refs/tags/"):
        return {"GIT_TAG": ref.removeprefix("refs/tags/")}
    if _COMMIT.fullmatch(ref):
        return {"GIT_COMMIT_HASH": ref}
    return {"GIT_BRANCH": ref.removeprefix("refs/heads/")}


def full_url(url: str) -> str:
    """Return the URL with its scheme: git_clone.sh compares no other form when it updates a clone."""
    if scp := _SCP.fullmatch(url):
        user, host, path = scp.groups()
        return f"ssh://{user}@{host}/{path}"
    return url.rstrip("/")
