"""What SkyPilot says of a failure, without the values that its commands export."""

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st
from skyoperator.sky import parse
from skyoperator.sky.masking import masked

CANARY = "c4n4ry-5ecret"


@given(values=st.dictionaries(st.sampled_from(["A", "GIT_URL", "HF_TOKEN"]), st.text(min_size=1), min_size=1), cut=st.integers(0, 40))
def test_what_a_command_exports_is_hidden_even_if_it_is_cut_off(values: dict[str, str], cut: int) -> None:
    exports = [f"export {name}={shlex.quote(CANARY + value)}" for name, value in values.items()]
    whole = " && ".join([*exports, "bash /tmp/clone.sh"])
    told = masked(f"Command {whole[: len(whole) - cut]}... failed with return code 1.\nGit clone failed on head: ~/sky_workdir\nNone")
    assert CANARY not in told
    assert told.startswith("Command e")


def test_other_words_stay_as_they_are() -> None:
    words = "Reason: ErrImagePull: it's not there. Run: export of data=2"
    assert masked(words) == words
    assert masked("Command export A='x'\"'\"'y z' && bash x failed") == "Command export A=*** && bash x failed"


def test_a_failed_launch_is_told_without_them() -> None:
    error = {"type": "CommandError", "message": f"Command export HF_TOKEN={CANARY} && bash... failed with return code 128."}
    told = parse.outcome({"status": "FAILED", "error": json.dumps(error)}).error
    assert told is not None
    assert told.message == "Command export HF_TOKEN=*** && bash... failed with return code 128."
