"""The table of mutants is true of the source as it is; that they are killed is what `make mutants` shows."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.mutants.__main__ import PACKAGE, ROOT, mutate
from tests.mutants.document import PATH, page
from tests.mutants.table import INVARIANTS, MUTANTS, Mutant

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


def test_the_page_is_what_the_table_says() -> None:
    assert PATH.read_text(encoding="utf-8") == page(), "make generate"
