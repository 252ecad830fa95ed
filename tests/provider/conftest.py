"""Airflow without a database: its home is a folder of the test run, made before anything of Airflow is imported."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.provider.memory import MemoryApi

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

settings.register_profile("unhurried", deadline=None)  # a time for each example would measure the machine's load
settings.load_profile("unhurried")

# Airflow 2 is promised what is not deferred, and the examples are for Airflow 3: test_airflow_2.py has what is there instead.
collect_ignore = ["test_airflow_2.py"] if find_spec("airflow.sdk") else ["test_examples.py", "test_trigger.py"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> MemoryApi:
    """What operators and sensors reach in the place of Kubernetes."""
    from skyoperator_provider.operators import base  # noqa: PLC0415 - it loads Airflow, whose home is said above

    from tests.provider.memory import MemoryApi  # noqa: PLC0415 - likewise

    memory = MemoryApi()
    monkeypatch.setattr(base, "SkyClusterHook", lambda **_: memory)
    return memory
