"""A shell task runs as it would without us, and returns the JSON that it leaves behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.remote.carrier import RESULT_PATH, TooLargeError, shell_run
from skyoperator_provider.remote.values import code_of

from tests.provider.far_side import Ran, run

RESULT = "out dir/it's $x.json"
SCRIPTS = {
    "nothing": "",
    "a comment": "# (",
    "a pipe": "printf '%s\\n' b a | sort",
    "its exit code": "echo x; exit 7",
    "of its last command": "echo x; false",
    "set -e": "set -e\nfalse\necho unreachable",
    "set -e with a condition": "set -e\nif false; then :; fi\nfalse || echo caught\n(exit 4)\necho unreachable",
    "set -u": "set -u\necho $nothing\necho unreachable",
    "pipefail": "set -euo pipefail\nfalse | cat\necho unreachable",
    "exec": "exec sh -c 'echo exec; exit 5'",
    "a trap": "trap 'echo bye' EXIT\necho hi\nexit 3",
    "traps of errors": "trap 'echo err $?' ERR\nfalse\ntrue",
    "here documents": "cat <<'EOF'\n$x `y` \\ ' \"\nEOF\ncat <<A; cat <<-B\n$((1 + 1))\nA\n\tb\nB",
    "a here document to the end": "cat <<EOF\nhello\nEOF",
    "unbalanced": "echo ')' '(' \"'\" \\\" # ' \" (",
    "functions": "f() { local x=1; return 6; }; f; echo $?",
    "case": "case x in x) echo one;; (y) echo two;; esac",
    "backslashes": "echo 'a\\b' \"c\\\\d\" e\\\n  f",
    "jobs": "sleep 0 & wait $!; echo $?; (exit 9) & wait $!",
    "its input": 'read -r line; echo "$line"; cat',
    "a syntax error": "echo before\nif then\necho after",
    "arrays": "a=(1 2 3); echo ${#a[@]} ${a[@]:1}",
    "aliases of ours": "skyoperator_code=5; skyoperator_result=/x; exit 0",
    "text that is ours": "cat <<'SKYOPERATOR_END'\nx\nSKYOPERATOR_END",
    "at signs": "echo @END@ @SCRIPT@ @DATA@",
    "spaces": "  echo '  x  '  \n\n\n",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_it_runs_as_it_would_without_us(tmp_path: Path, script: str) -> None:
    plain, ours = run(script, tmp_path), run(shell_run(script, result_path=RESULT), tmp_path)
    assert (ours.code, ours.stdout) == (plain.code, plain.stdout)
    assert (ours.stderr == "") == (plain.stderr == "")
    assert ours.body is None


def test_who_is_killed_exits_as_a_shell_says_it(tmp_path: Path) -> None:
    assert run(shell_run("kill -TERM $BASHPID", result_path=RESULT), tmp_path).code == 128 + 15


def returns(tmp_path: Path, script: str, path: str = RESULT, **env: str) -> Ran:
    return run(shell_run(script, result_path=path), tmp_path, **{"PYTHONWARNINGS": "error", **env})


@pytest.mark.parametrize("end", ["", "\nexec true", "\ntrap 'echo bye' EXIT", "\nset -e; exit 0", "\ncd /; unset HOME"])
def test_what_it_leaves_is_returned(tmp_path: Path, end: str) -> None:
    ran = returns(tmp_path, f"""printf '{{"loss": [0.5, "ü"], "__skyoperator__": 1}}' > "{RESULT.replace("$", chr(92) + "$")}"{end}""")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.value == {"loss": [0.5, "ü"], "__skyoperator__": 1}


def test_a_home_directory_is_the_clusters(tmp_path: Path) -> None:
    assert returns(tmp_path, "echo 5 > ~/'r s.json'", "~/r s.json").value == 5


def test_nothing_is_returned_by_who_failed(tmp_path: Path) -> None:
    ran = returns(tmp_path, "echo 5 > r.json; exit 6", "r.json")
    assert (ran.code, ran.body) == (6, None)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_one_that_tells_its_exit_code_runs_as_it_would_without_us(tmp_path: Path, script: str) -> None:
    plain, ours = run(script, tmp_path), run(shell_run(script, result_path=RESULT, tells_exit_code=True), tmp_path)
    assert (ours.code, ours.log.strip()) == (plain.code, plain.log.strip())
    assert (ours.stderr == "") == (plain.stderr == "")
    assert (None if ours.body is None else code_of(ours.error)) == (plain.code or None)


def test_one_that_tells_its_exit_code_returns_what_it_left_if_it_is_good(tmp_path: Path) -> None:
    told = run(shell_run("echo 5 > r.json", result_path="r.json", tells_exit_code=True), tmp_path)
    assert (told.code, told.value) == (0, 5)
    bad = run(shell_run("echo { > r.json", result_path="r.json", tells_exit_code=True), tmp_path)
    assert (bad.code, bad.error.type, code_of(bad.error)) == (1, "skyoperator.ReturnValueError", None)


def test_an_exit_code_stays_where_it_can_not_be_told(tmp_path: Path) -> None:
    """Without Python, and on a node that is not the first."""
    text = shell_run("exit 6", result_path="r.json", tells_exit_code=True, python="/no/python")
    assert (run(text, tmp_path).code, run(text, tmp_path).body) == (6, None)
    text = shell_run("exit 6", result_path="r.json", tells_exit_code=True)
    other = run(text, tmp_path, SKYPILOT_NODE_RANK="1")
    assert (other.code, other.body) == (6, None)


def test_the_first_rank_alone_returns_and_removes(tmp_path: Path) -> None:
    """The file may be on a disk that all nodes share."""
    path = tmp_path / "sky_workdir" / "r.json"
    ran = returns(tmp_path, "echo 5 > r.json", "r.json", SKYPILOT_NODE_RANK="1")
    assert (ran.code, ran.body) == (0, None)
    assert path.exists()
    assert returns(tmp_path, "cat r.json", "r.json", SKYPILOT_NODE_RANK="1").log == "5\n"
    assert path.exists()


def test_what_another_job_left_is_not_returned(tmp_path: Path) -> None:
    assert returns(tmp_path, "echo 5 > r.json", "r.json").value == 5
    ran = returns(tmp_path, "true", "r.json")
    assert (ran.code, ran.body) == (0, None)


BAD = {
    "": "is not JSON: Expecting value",
    "{": "is not JSON: Expecting",
    "[NaN]": "is not JSON: it holds NaN",
    "1e999": "is inf, which JSON has not",
    "\\xff": "is not JSON: 'utf-8' codec can't decode",
    "5 6": "is not JSON: Extra data",
}


@pytest.mark.parametrize(("text", "says"), BAD.items())
def test_what_is_not_json_fails_the_job(tmp_path: Path, text: str, says: str) -> None:
    ran = returns(tmp_path, f"printf '{text}' > r.json", "r.json")
    assert ran.code == 1
    assert ran.error.type == "skyoperator.ReturnValueError"
    assert ran.error.message.startswith(f"r.json {says}")
    assert ran.stderr == f"skyoperator.ReturnValueError: {ran.error.message}\n"


def test_what_is_too_long_fails_the_job(tmp_path: Path) -> None:
    ran = returns(tmp_path, "head -c 600000 /dev/zero | tr '\\0' 1 | sed 's/.*/\"&\"/' > r.json", "r.json")
    assert (ran.code, ran.error.message[:61]) == (1, "r.json is too long: 600002 bytes of JSON, more than 524288; s")
    ran = returns(tmp_path, "head -c 9000000 /dev/zero > r.json", "r.json")
    assert (ran.code, ran.error.message) == (1, "r.json is longer than 8388608 bytes")


def test_spaces_and_a_mark_of_utf_8_are_no_matter(tmp_path: Path) -> None:
    assert returns(tmp_path, "printf '\\xef\\xbb\\xbf\\n[1,%600000s]\\n' 0 > r.json", "r.json").value == [1, 0]


def test_a_result_without_python_is_an_error(tmp_path: Path) -> None:
    text = shell_run("echo 5 > r.json", result_path="r.json", python="/no/python")
    ran = run(text, tmp_path)
    assert (ran.code, ran.body) == (127, None)
    assert "no Python 3.8 or newer is here; tried /no/python" in ran.stderr
    assert run(shell_run("echo 5", result_path="r.json", python="/no/python"), tmp_path).code == 0


@given(st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])))
def test_any_text_reaches_the_shell_as_it_is(script: str) -> None:
    text = shell_run(script)
    shown = text.replace('( eval "$skyoperator_script" )', 'printf %s "$skyoperator_script"; exit')
    shown = shown.replace("mkdir -p", ": mkdir").replace("sudo -n", ": sudo").replace("rm -f", ": rm")
    done = subprocess.run(
        ["bash"], input=shown.encode(), capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout.decode() == f"{script}\n"


def test_the_same_script_is_the_same_bytes() -> None:
    assert shell_run("echo") == shell_run("echo")
    assert RESULT_PATH in shell_run("echo")


def test_the_script_stays_readable() -> None:
    """`kubectl get skyc -o yaml` shows what runs."""
    assert '\npython train.py --lr 0.1 "$X"\n' in shell_run('python train.py --lr 0.1 "$X"')


def test_a_script_that_is_too_long_is_refused() -> None:
    with pytest.raises(TooLargeError, match=r"run is \d+ bytes with what returns its result, and may be 49152"):
        shell_run("x" * 48_000)


def test_values_are_those_of_json(tmp_path: Path) -> None:
    value: list[Any] = [None, True, 2**70, -0.5, "\ud83d", {"": {}}]
    assert returns(tmp_path, f"cat > r.json <<'EOF'\n{json.dumps(value)}\nEOF", "r.json").value == value
