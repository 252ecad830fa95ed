"""The lines before `setup` and `run` that let an attempt run once, even if SkyPilot was asked for it twice.

A POST that timed out may have been accepted, so the same attempt can stand in a cluster's queue as two jobs. Whichever
job comes first on a node leaves a symbolic link that names it: making one is atomic, and it holds its content from the
start. What the next one finds decides:

    no link               ours now: go on
    our own link          the same job, from its setup: go on; but never enter `run` a second time, which Ray does
                          when it loses a worker, for then the first may still be running and success would be a lie
    link of an older job  we are the duplicate: say so and succeed, since the older job alone is followed
    anything else         the disk is full or read-only, or the home directory outlived another cluster: fail

The job is known by SKYPILOT_TASK_ID, `<time of the launch>_<cluster>_<job id>` (sky/utils/common_utils.py:322), which
SkyPilot exports to setup and run alike. A home directory may be shared between nodes, hence the rank in the name.
"""

from typing import Literal

EXIT_CODE = 73  # EX_CANTCREAT of sysexits.h

_FENCE = r"""skyoperator_fence() {
  local me="${SKYPILOT_TASK_ID:-}" mark="$HOME/.skyoperator/attempts/@JOB@-node${@RANK@:-0}" owner why
  why="$(mkdir -p "${mark%/*}" 2>&1 && ln -sn "$me" "$mark" 2>&1)" || true
  owner="$(readlink "$mark" 2>/dev/null)" || true
  if [ -n "$owner" ] && [ "$owner" = "$me" ]; then
    @ENTER@
  elif [ -n "$owner" ] && [ "${owner##*_}" -lt "${me##*_}" ] 2>/dev/null; then
    echo "skyoperator: @JOB@ is already run by job ${owner##*_} of this cluster; this duplicate does nothing."
    exit 0
  elif [ -z "$me" ]; then
    why="SKYPILOT_TASK_ID is not set"
  elif [ -n "$owner" ]; then
    why="$mark belongs to $owner"
  fi
  echo "skyoperator: not running @JOB@: ${why:-$mark is in the way}" >&2
  exit @EXIT_CODE@
}
skyoperator_fence
unset -f skyoperator_fence
"""
_ENTER = {
    "setup": "return 0",
    "run": 'why="$(ln -sn "$me" "$mark.run" 2>&1)" && return 0; why="it has begun here before, or cannot: $why"',
}
_RANK = {"setup": "SKYPILOT_SETUP_NODE_RANK", "run": "SKYPILOT_NODE_RANK"}


def fenced(script: str, stage: Literal["setup", "run"], job: str) -> str:
    """Return the bash script with the fence of the job before it; the script itself is left as it is."""
    words = {"@JOB@": job, "@RANK@": _RANK[stage], "@ENTER@": _ENTER[stage], "@EXIT_CODE@": str(EXIT_CODE)}
    fence = _FENCE
    for word, meaning in words.items():
        fence = fence.replace(word, meaning)
    return f"{fence}{script}"
