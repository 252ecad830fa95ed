"""The package as Airflow loads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "airflow_plugin"
SCRIPT = """
import importlib, pkgutil, warnings
import skyoperator_provider

warnings.filterwarnings("error", module="skyoperator_provider")
found = [module.name for module in pkgutil.walk_packages(skyoperator_provider.__path__, "skyoperator_provider.")]
for name in found:
    importlib.import_module(name)
print(*found)
"""


def test_each_module_imports_and_uses_nothing_that_is_deprecated() -> None:
    """In a process where no test has imported anything before: a warning is told once."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=PACKAGE)
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.glob("skyoperator_provider/**/*.py")}
    names = {".".join(path.parts).removesuffix(".__init__") for path in files}
    assert set(done.stdout.split("\n")[-2].split()) == names - {"skyoperator_provider"}
