"""docs/design/invariants.md, made of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.mutants.table import INVARIANTS, MUTANTS, Mutant

PATH: Final = Path(__file__).resolve().parents[2] / "docs/design/invariants.md"

HEAD: Final = """# Invariants

What the controller promises, how each promise could be broken, and the test that would notice. `make mutants` applies each of these bugs to
a copy of the source and wants an assertion of its test to fail there. This page is made of `tests/mutants/table.py` by `make generate`.

`test_machine.py` is the one that knows no cases: it lets SkyPilot, the network, the clock, the user and crashes move at random around the
real rules and the real `reconcile.py` (`tests/machine`), and checks every launch, every decision and every status against this page.
`HYPOTHESIS_PROFILE=thorough` lets it, and the crashes of `test_crashes_of_long_lives.py`, go on for longer.

| | the bug | in | test in tests/unit that finds it |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return HEAD + "".join(_section(number, words) for number, words in INVARIANTS.items())


def _section(number: int, words: str) -> str:
    rows = "".join(_row(mutant) for mutant in MUTANTS if mutant.invariant == number)
    return f"| **{number}** | **{words}** | | |\n{rows}"


def _row(mutant: Mutant) -> str:
    return f"| | {mutant.name} | `{mutant.path}` | `{mutant.test}` |\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
