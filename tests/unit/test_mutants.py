"""The table of mutants is true of the source as it is; that they are killed is what `make mutants` shows."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.mutants.__main__ import PACKAGE, ROOT, Result, mutate, verdicts_of
from tests.mutants.document import PATH, page
from tests.mutants.table import INVARIANTS, MUTANTS, Mutant
from tests.mutants.verdict import ASSERTED, DIED, PASSED, VARIABLE

pytest_plugins = ["pytester"]
every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])


def test_every_invariant_has_a_mutant() -> None:
    assert {mutant.invariant for mutant in MUTANTS} == INVARIANTS.keys()


@every_mutant
def test_it_applies_and_is_python(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / mutant.path
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / PACKAGE / mutant.path, copy)
    mutate(tmp_path, mutant)
    ast.parse(copy.read_text(encoding="utf-8"))


@every_mutant
def test_the_test_that_finds_it_exists(mutant: Mutant) -> None:
    path, *names = mutant.test.split("::")
    scope: ast.AST = ast.parse((ROOT / "tests/unit" / path).read_text(encoding="utf-8"))
    for name in names:
        scope = next(node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == name)


ALL_IS_WELL = "def test_it(): assert True"


@pytest.mark.parametrize(
    ("text", "verdicts", "is_killed"),
    [
        ("def test_it(): assert False", {ASSERTED}, True),
        ("import pytest\ndef test_it(): pytest.fail('so')", {ASSERTED}, True),
        ("def test_it(): raise ExceptionGroup('two', [AssertionError(), AssertionError()])", {ASSERTED}, True),
        ("def test_it(): raise ExceptionGroup('two', [AssertionError(), TypeError()])", {DIED}, False),
        ("def test_it(): raise TypeError", {DIED}, False),
        ("import pytest\n@pytest.fixture\ndef broken(): assert False\ndef test_it(broken): pass", {DIED}, False),
        ("import nothing_of_that_name", set(), False),
        (ALL_IS_WELL, {PASSED}, False),
    ],
)
def test_only_an_assertion_kills(pytester: pytest.Pytester, text: str, verdicts: set[str], is_killed: bool) -> None:
    path, file = pytester.path / "verdicts", pytester.path / "tests/unit/test_one.py"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(path))
        pytester.inline_run("-p", "no:asyncio", "-p", "tests.mutants.verdict", str(file))
    found = verdicts_of(pytester.path, ("test_one.py::test_it",))
    assert found == verdicts
    assert Result(MUTANTS[0], (), found, 0.0, "").is_good is is_killed
    assert Result(None, (), found, 0.0, "").is_good is (text == ALL_IS_WELL)


def test_the_page_is_what_the_table_says() -> None:
    assert PATH.read_text(encoding="utf-8") == page(), "make generate"
