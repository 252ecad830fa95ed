"""The text of spec.task.run: a function or a shell script, with what returns its value.

The same input makes the same bytes, so a try finds the object that the try before it made unchanged. (Another version of zlib may
compress to other bytes; such an object is adopted all the same.)
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any, Final

from skyoperator_provider.remote.arguments import Arguments
from skyoperator_provider.remote.source import Source

RUN_BYTES: Final = 48 * 1024
"""What the controller takes of setup, run and envs together (controller/skyoperator/task/policy.py, MAX_SCRIPT_BYTES)."""
RESULT_PATH: Final = "/airflow/xcom/return.json"
"""Where a shell task leaves its result, as with KubernetesPodOperator."""

_ALL: Final = ("__init__", "failure", "frames", "payload", "report", "tagged")
_FUNCTION: Final = (*_ALL, "function", "runner")
_RESULT_FILE: Final = (*_ALL, "result_file")
_LINE_CHARACTERS: Final = 120

_LAUNCH: Final = r"""skyoperator_python() {
  local candidate
  for candidate in @PYTHONS@; do
    if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  echo "skyoperator: no Python 3.8 or newer is here; tried" @PYTHONS@ >&2
  echo "skyoperator: set python= to one, install one in setup, or choose another image_id" >&2
  return 127
}
skyoperator_main() {
  local python home code=0
  python="$(skyoperator_python)" || return 127
  home="$(mktemp -d)" || return 1
  "$python" -I -c '@UNPACK@' "$home" <&3 && "$python" "$home" 3<&- || code=$?
  rm -rf "$home"
  return "$code"
}
"""
_UNPACK: Final = """
import base64, json, os, sys, zlib
for name, text in json.loads(zlib.decompress(base64.b64decode(sys.stdin.buffer.read()))).items():
    path = os.path.join(sys.argv[1], name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
"""
_CARRIED: Final = """skyoperator_main 3<<'SKYOPERATOR_END'
@DATA@
SKYOPERATOR_END
"""
_SHELL: Final = r"""IFS= read -r -d '' skyoperator_script <<'@END@' || true
@SCRIPT@
@END@
skyoperator_result=@PATH@
skyoperator_folder="$(dirname -- "$skyoperator_result")"
mkdir -p -- "$skyoperator_folder" 2>/dev/null || sudo -n install -d -o "$(id -u)" -- "$skyoperator_folder" 2>/dev/null || true
[ "${SKYPILOT_NODE_RANK:-0}" != 0 ] || rm -f -- "$skyoperator_result"
( eval "$skyoperator_script" )
skyoperator_code=$?
@WHEN@"""
_RETURNING: Final = r"""if [ "$skyoperator_code" -ne 0 ] || [ "${SKYPILOT_NODE_RANK:-0}" != 0 ] || [ ! -e "$skyoperator_result" ]; then
  exit "$skyoperator_code"
fi
"""
_TELLING: Final = r"""if [ "${SKYPILOT_NODE_RANK:-0}" != 0 ] || { [ "$skyoperator_code" -eq 0 ] && [ ! -e "$skyoperator_result" ]; }; then
  exit "$skyoperator_code"
fi
export SKYOPERATOR_EXIT_CODE="$skyoperator_code"
"""
_TOLD: Final = 'exit "$(( skyoperator_code ? skyoperator_code : $? ))"\n'


class TooLargeError(ValueError):
    """What is to be sent is more than a SkyCluster takes; names the largest part."""


def function_run(
    source: Source, arguments: Arguments, *, python: str | None = None, every_rank: bool = True, limit_bytes: int = RUN_BYTES
) -> str:
    """Return the bash text that calls the function with the arguments, on each node, and returns what it returns on the first.

    Args:
        source: The function.
        arguments: What it is called with.
        python: A Python on the cluster, by path or name. Default: python3, else the one that SkyPilot itself runs on.
        every_rank: Whether it is called on each node, rather than on the first alone.
        limit_bytes: How long the text may be: what setup and envs leave.

    Raises:
        TooLargeError: The text would be longer.
    """
    payload = {
        "function": source.function.name,
        "definitions": [asdict(definition) for definition in source.definitions],
        "every_rank": every_rank,
        **arguments.payload,
    }
    module = "from skyoperator_far import runner\n\nrunner.define_all(globals())\ndel runner\n"
    sent = {**_program("runner", _FUNCTION), "skyoperator_task.py": module, "payload.json": _json(payload)}
    text = f"# {source.function.name}(), its arguments, and what calls it: base64 of zlib of JSON.\n{_launch(python)}{_carried(sent)}"
    if len(text.encode()) > limit_bytes:
        raise TooLargeError(_too_large(source, arguments, len(text.encode()), limit_bytes))
    return text


def shell_run(
    run: str,
    *,
    result_path: str = RESULT_PATH,
    tells_exit_code: bool = False,
    python: str | None = None,
    limit_bytes: int = RUN_BYTES,
) -> str:
    """Return the bash text that runs the script in a shell of its own, and returns the JSON that it left in result_path on the first node.

    What was in result_path before is removed: else a script that returns nothing would return what another did. With tells_exit_code a
    script that fails on the first node returns what it exited with, as an error; see `values.exit_code`.

    Raises:
        TooLargeError: The text would be longer than limit_bytes.
    """
    sent = {**_program("result_file", _RESULT_FILE), "payload.json": _json({"result_path": result_path})}
    end = f"SKYOPERATOR_{hashlib.sha256(run.encode(errors='surrogatepass')).hexdigest()[:16]}"
    words = {"@END@": end, "@SCRIPT@": run, "@PATH@": _word(result_path), "@WHEN@": _TELLING if tells_exit_code else _RETURNING}
    text = f"{_filled(_SHELL, words)}{_launch(python)}{_carried(sent)}{_TOLD if tells_exit_code else ''}"
    size = len(text.encode(errors="surrogatepass"))
    if size > limit_bytes:
        raise TooLargeError(f"run is {size} bytes with what returns its result, and may be {limit_bytes}; keep the script in a repository")
    return text


def _too_large(source: Source, arguments: Arguments, size: int, limit: int) -> str:
    """Say what is too large. What is compressed has no exact share of the whole, so only sizes on their own are told."""
    name, largest = max(arguments.sizes.items(), key=lambda item: item[1], default=("", 0))
    code = len(zlib.compress("".join(definition.text for definition in source.definitions).encode()))
    parts = f"the source of {source.function.name}() and what it includes is {code} bytes when compressed"
    if name:
        parts += f", its largest argument, {name}, {largest}"
    return f"{source.function.name}() takes {size} bytes of spec.task.run, and may take {limit}: {parts}; send an address of what is large"


def _program(entry: str, modules: Iterable[str]) -> dict[str, str]:
    sources = _far_sources()
    return {
        "__main__.py": f"from skyoperator_far import {entry}\n\n{entry}.main()\n",
        **{f"skyoperator_far/{name}.py": sources[name] for name in sorted(modules)},
    }


@cache
def _far_sources() -> Mapping[str, str]:
    folder = files("skyoperator_provider.remote.far")
    return {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in {*_FUNCTION, *_RESULT_FILE}}


def _launch(python: str | None) -> str:
    pythons = 'python3 "$HOME"/skypilot-runtime/bin/python' if python is None else _word(python)
    return _filled(_LAUNCH, {"@PYTHONS@": pythons, "@UNPACK@": _UNPACK})


def _carried(sent: Mapping[str, str]) -> str:
    data = base64.b64encode(zlib.compress(_json(sent).encode(), 9)).decode()
    lines = [data[at : at + _LINE_CHARACTERS] for at in range(0, len(data), _LINE_CHARACTERS)]
    return _filled(_CARRIED, {"@DATA@": "\n".join(lines)})


def _word(path: str) -> str:
    """Return the path as one word of bash; `~` is the home directory there."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def _filled(template: str, words: Mapping[str, str]) -> str:
    """Return the template with each word in its place; what is put in is not looked at again."""
    before, *rest = template.split("@")
    filled = [before]
    for index, piece in enumerate(rest):
        filled.append(words.get(f"@{piece}@", piece) if index % 2 == 0 else piece)
    return "".join(filled)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
