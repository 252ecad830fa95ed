"""A thousand deferred tasks in one real triggerer. Who waits for what is written into Airflow's database, and so is what is heard.

That database is of this test run: its place is said here, before anything of Airflow is imported.
"""

from __future__ import annotations

import os
import tempfile
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final

COUNT: Final = int(os.environ.setdefault("TRIGGERS", "1000"))
"""A triggerer takes no more unless `[triggerer] capacity` says so."""
HOME: Final = Path(tempfile.mkdtemp(prefix="airflow-home-"))

os.environ["AIRFLOW_HOME"] = str(HOME)
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).with_name("dags"))
os.environ["AIRFLOW__CORE__FERNET_KEY"] = urlsafe_b64encode(os.urandom(32)).decode()
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
