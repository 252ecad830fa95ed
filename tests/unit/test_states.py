"""docs/design/states.md and the drawing in decide.py say what the rules do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from skyoperator import decide as decide_module
from skyoperator.api.v1alpha1 import Phase
from skyoperator.decide import RULES

from tests.unit.build import decide
from tests.unit.ranks import RANKS
from tests.unit.situations import CHANGES, situations

PAGE = (Path(__file__).resolve().parents[2] / "docs/design/states.md").read_text(encoding="utf-8")
PHASES = {phase.value for phase in Phase}

LIVE_CHANGES = sorted(CHANGES.keys() - {"no finalizer"})
"""Nobody takes the finalizer off what was launched, and leaves the object there."""

RANKED_CHANGES = (
    "deleted",
    "abandoned",
    "no finalizer",
    "confirmed lost",
    "suspended",
    "over its deadline",
    "over its time to live",
    "edited",
    "misspelt",
)
RANKED_PAIRS = list(itertools.combinations(RANKED_CHANGES, 2))

NEVER_TOGETHER = {
    "abandon": {"refusal"},
    "finalizer": {"delete"},
    "confirm-lost": {"queue"},
    "delete": {"refusal"},
    "ttl": {"deadline", "left-overs", "job", "launch", "plain cluster", "backoff"},
    "edit after the end": {"deadline", "left-overs", "job", "launch", "plain cluster", "backoff", "refusal"},
    "the end": {"deadline", "left-overs", "job", "launch", "plain cluster", "backoff"},
    "unreachable": {"queue"},
    "left-overs": {"job", "launch", "plain cluster"},
    "job": {"launch", "plain cluster", "backoff", "refusal", "queue"},
    "launch": {"plain cluster", "backoff", "refusal", "queue"},
    "plain cluster": {"backoff", "refusal", "queue"},
}


def rows(heading: str) -> Iterator[list[str]]:
    """The rows of the table under that heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return ([cell.strip() for cell in line.strip("|").split("|")] for line in table[2:])


@cache
def seen_transitions() -> frozenset[tuple[str, str]]:
    """Every step from one phase to another that decide makes; to Deleting apart."""
    return frozenset(
        (this.status.phase or "new", after)
        for change in LIVE_CHANGES
        for _, this, world in situations(CHANGES[change])
        if (after := decide(this, world).status.phase) not in {None, this.status.phase, Phase.DELETING}
        and this.status.phase is not Phase.DELETING
    )


def test_the_table_of_phases_has_every_step_that_is_made_and_no_other() -> None:
    assert {(before, after) for before, after, _ in rows("Which phase follows which")} == seen_transitions()


def test_every_step_of_the_diagrams_is_made() -> None:
    mermaid = set(re.findall(r"^ +(\w+) --> (\w+)", PAGE, flags=re.MULTILINE))
    assert mermaid <= seen_transitions()
    assert _drawn() <= seen_transitions()
    assert {phase for step in mermaid for phase in step} == PHASES - {"Deleting"}
    assert {phase for step in _drawn() for phase in step} == PHASES - {"Deleting"}


def _drawn() -> set[tuple[str, str]]:
    """The steps in the drawing at decide's head: `A | B ──► C` on a line of its own, a remark after three blanks."""
    lines = [line.strip().split("   ")[0] for line in (decide_module.__doc__ or "").splitlines() if "──►" in line]
    chains = [[set(re.findall(r"\w+", stop)) for stop in line.split("──►")] for line in lines]
    return {step for chain in chains for before, after in itertools.pairwise(chain) for step in itertools.product(before, after)}


def test_deleting_is_reached_from_every_phase_and_never_left() -> None:
    seen = {(this.status.phase, decide(this, world).status.phase) for _, this, world in situations(CHANGES["deleted"]) if this.finalizers}
    assert {after for before, after in seen if before is not None} == {Phase.DELETING}
    assert {before for before, _ in seen if before is not None} == set(Phase)


def test_the_table_of_ranks_is_the_order_of_the_rules() -> None:
    table = list(rows("Who outranks whom"))
    assert [rule for _, rules, _, _ in table for rule in re.findall(r"`(\w+)`", rules)] == [rule.__name__ for rule in RULES]
    assert [name for name, *_ in table] == [rank.name for rank in RANKS]


@cache
def met(*changes: str) -> frozenset[tuple[str, str]]:
    """The pairs that apply together after these changes, the first of them deciding: that it does is asserted here."""
    pairs = set()
    for name, this, world in situations(*(CHANGES[change] for change in changes)):
        first, *others = [rank for rank in RANKS if rank.applies(this, world)]
        decision = decide(this, world)
        assert first.shows(this, decision), (first.name, name, world, decision)
        pairs |= {(first.name, other.name) for other in others}
    return frozenset(pairs)


@pytest.mark.parametrize("changes", RANKED_PAIRS, ids=" and ".join)
def test_the_first_that_applies_decides(changes: tuple[str, str]) -> None:
    assert met(*changes)


def test_every_pair_was_tried_that_can_meet() -> None:
    tried = frozenset[tuple[str, str]]().union(*(met(*changes) for changes in RANKED_PAIRS))
    never: dict[str, set[str]] = {}
    for first, second in itertools.combinations([rank.name for rank in RANKS], 2):
        if (first, second) not in tried:
            never.setdefault(first, set()).add(second)
    assert never == NEVER_TOGETHER
