"""A pytest plugin that tells how the tests of one run ended: killed is a mutant by an assertion of its test, and by nothing else.

A copy of the source that can't be imported, a fixture that fails, a test that dies of another exception: none of that has noticed the bug.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

VARIABLE: Final = "SKYOPERATOR_VERDICT"
"""Names the file into which each test's verdict is written, a word a line."""
PASSED, ASSERTED, DIED = "passed", "asserted", "died"


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Write down how the phase of the test ended, if that says anything. pytest_runtest_makereport is a hook of pytest."""
    if call.excinfo is None:
        word = PASSED if call.when == "call" else ""
    else:
        word = ASSERTED if call.when == "call" and _is_assertion(call.excinfo.value) else DIED
    if word:
        with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as verdicts:
            verdicts.write(f"{word} {item.nodeid}\n")


def _is_assertion(error: BaseException) -> bool:
    """Hypothesis raises a group if it has found several failures."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_assertion(one) for one in error.exceptions)
    return isinstance(error, (AssertionError, pytest.fail.Exception))
