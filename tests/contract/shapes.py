"""The shape of an answer: which fields a row has, and of what type. Recorded from a real server, held against both.

SKYOPERATOR_CONTRACT_RECORD=1 pytest tests/e2e/test_contract.py     # writes shapes.json anew
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "shapes.json"
Shape = dict[str, str]


def shape(row: dict[str, Any]) -> Shape:
    """Return the type of each field that has a value."""
    return {key: type(value).__name__ for key, value in sorted(row.items()) if value is not None}


def check(name: str, row: dict[str, Any]) -> None:
    """Assert that a row has at least the recorded fields, of the recorded types; record it instead if asked to."""
    recorded = json.loads(_FILE.read_text(encoding="utf-8"))
    seen = shape(row)
    if os.environ.get("SKYOPERATOR_CONTRACT_RECORD"):
        recorded[name] = seen
        _FILE.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return
    wanted = recorded[name]
    assert {key: seen.get(key) for key in wanted} == wanted, f"{name} has another shape than a real server's"
