"""Airflow without a database: its home is a folder of the test run, made before anything of Airflow is imported."""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

settings.register_profile("unhurried", deadline=None)  # a time for each example would measure the machine's load
settings.load_profile("unhurried")
