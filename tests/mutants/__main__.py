"""Apply each mutant in a copy of the source and run its test there: an assertion must fail. Without a mutant it must pass."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.table import INVARIANTS, MUTANTS, Mutant
from tests.mutants.verdict import ASSERTED, DIED, PASSED, VARIABLE

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("controller", "tests", "pyproject.toml")
PACKAGE = "controller/skyoperator"
VERDICTS = "verdicts"
TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Result:
    """What became of one test on one copy."""

    mutant: Mutant | None
    tests: tuple[str, ...]
    verdicts: frozenset[str]
    """How the tests ended; none if they were not run."""
    seconds: float
    output: str

    @property
    def is_good(self) -> bool:
        """Whether the mutant was killed or, without one, all is well."""
        return ASSERTED in self.verdicts and DIED not in self.verdicts if self.mutant else self.verdicts == {PASSED}


def mutate(source: Path, mutant: Mutant) -> None:
    """Apply the mutant to the package in `source`. Raises ValueError if the place to change is not there exactly once."""
    path = source / mutant.path
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.path} has the text to be changed {text.count(mutant.old)} times; correct table.py")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def run(mutant: Mutant | None, tests: tuple[str, ...]) -> Result:
    """Run tests on a copy of the source with the mutant in it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        copy = Path(name)
        for part in COPIED:
            _copy(ROOT / part, copy / part)
        if mutant is not None:
            mutate(copy / PACKAGE, mutant)
        output = _pytest(copy, tests)
        verdicts = verdicts_of(copy, tests)
    return Result(mutant, tests, verdicts, time.monotonic() - began, output)


def verdicts_of(copy: Path, tests: tuple[str, ...]) -> frozenset[str]:
    """Return how the named tests ended; what else may have run says nothing."""
    try:
        lines = (copy / VERDICTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return frozenset()
    named = tuple(f"tests/unit/{test}" for test in tests)
    return frozenset(line.partition(" ")[0] for line in lines if line.partition(" ")[2].startswith(named))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _pytest(copy: Path, tests: tuple[str, ...]) -> str:
    """Run pytest on the copy and return what it printed; PYTHONPATH puts its package before the one that is installed."""
    environment = {
        **os.environ,
        VARIABLE: str(copy / VERDICTS),
        "PYTHONPATH": str(copy / "controller"),
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.mutants.verdict",
        *(f"tests/unit/{test}" for test in tests),
    ]
    done = subprocess.run(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    return done.stdout


def main() -> int:
    """Print a line for each mutant; return 1 if one survived, or if a test fails without any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("words", nargs="*", help="only the mutants that have one of these words in their name")
    arguments = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if not arguments.words or any(word in mutant.name for word in arguments.words)]
    tests = tuple(dict.fromkeys(mutant.test for mutant in mutants))
    with ThreadPoolExecutor(arguments.parallel) as pool:
        unchanged = pool.submit(run, None, tests)
        results = [*pool.map(lambda mutant: run(mutant, (mutant.test,)), mutants), unchanged.result()]
    for result in results:
        _print(result)
    return 0 if all(result.is_good for result in results) else 1


def _print(result: Result) -> None:
    if result.mutant is None:
        print(f"{'pass' if result.is_good else 'FAIL'}  {result.seconds:5.1f} s  without a mutant: {len(result.tests)} tests")
    else:
        mutant = result.mutant
        print(
            f"{_word(result):8} {result.seconds:5.1f} s  {mutant.invariant:2} {INVARIANTS[mutant.invariant]} {mutant.name}: {mutant.test}"
        )
    if not result.is_good:
        print(result.output[-2000:])


def _word(result: Result) -> str:
    if result.is_good:
        return "killed"
    if not result.verdicts:
        return "NOT RUN"
    return "DIED" if DIED in result.verdicts else "SURVIVED"


if __name__ == "__main__":
    sys.exit(main())
