"""What was sent, beside the sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def payload() -> dict[str, Any]:
    """Return it; it lies in the folder that holds this package."""
    path = Path(__file__).parent.parent / "payload.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))
