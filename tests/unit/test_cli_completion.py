"""What a shell is told on TAB, and how soon."""

from __future__ import annotations

import sys

import pytest
from skyoperator.cli.completion import VARIABLE, answer_kubectl, answer_shell
from skyoperator.cli.main import COMPLETE_VARIABLE, cli, main, run, run_completion

from tests.unit.fake_api import sky_cluster
from tests.unit.sky_command import Sky, pauses, sky

__all__ = ["pauses", "sky"]


def words(lines: list[str]) -> list[str]:
    return [line.split("\t")[0] for line in lines[:-1]]


def test_kubectl_is_told_commands_and_that_no_file_is_meant() -> None:
    lines = answer_kubectl(cli, ["lo"])

    assert words(lines) == ["logs"]
    assert lines[0].split("\t")[1]
    assert lines[-1] == ":4"


def test_kubectl_is_told_all_commands() -> None:
    assert words(answer_kubectl(cli, [""])) == ["completion", "down", "logs", "status", "top", "wait"]
    assert words(answer_kubectl(cli, [])) == words(answer_kubectl(cli, [""]))


def test_flags_and_choices_complete() -> None:
    assert words(answer_kubectl(cli, ["logs", "--prov"])) == ["--provision"]
    assert words(answer_kubectl(cli, ["wait", "x", "--for", "c"])) == ["complete"]


def test_names_complete_in_the_namespace_that_is_named(sky: Sky) -> None:
    for name in ("train", "trial", "other"):
        sky.api.put(sky_cluster(name))
    sky.api.put(sky_cluster("train-there", namespace="there"))
    where = ["--kubeconfig", str(sky.kubeconfig)]

    assert words(answer_kubectl(cli, ["logs", *where, "tr"])) == ["train", "trial"]
    assert words(answer_kubectl(cli, [*where, "logs", "-n", "there", ""])) == ["train-there"]
    assert words(answer_kubectl(cli, ["down", *where, "train", "tr"])) == ["trial"]


def test_a_cluster_that_is_not_there_is_no_error_on_tab(sky: Sky) -> None:
    sky.api.has_crd = False

    assert answer_kubectl(cli, ["logs", "--kubeconfig", str(sky.kubeconfig), ""]) == [":4"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(sky: Sky, capsysbinary: pytest.CaptureFixture[bytes], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsysbinary.readouterr().out.decode()
    assert "kubectl-sky" in script
    assert f"{VARIABLE}={shell}_complete" in script


def test_a_shell_s_script_is_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The variable that the scripts set is the one that the executable looks for."""
    assert VARIABLE == COMPLETE_VARIABLE
    monkeypatch.setenv("COMP_WORDS", "kubectl-sky sta")
    monkeypatch.setenv("COMP_CWORD", "1")

    assert answer_shell(cli, "bash_complete") == 0
    assert capsys.readouterr().out == "plain,status\n"


def test_the_executables_end_with_their_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["kubectl-sky", "wait"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2

    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-sky", "lo"])
    with pytest.raises(SystemExit) as ended:
        run_completion()
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == ":4"
