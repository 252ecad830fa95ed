"""The contract, asked of the stand-in in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from skyoperator.sky import SecretDirectory

from tests.contract.cases import BARE, CLOUD
from tests.contract.stage import Stage
from tests.standin.server import RemoteControl

TOKEN = "sky_stand-in"
EXIT_3 = "before\nERROR: Job 1 failed with return code list: [3] \n"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Yield the address of a stand-in that runs as a process, as it does for a controller under test."""
    with subprocess.Popen([sys.executable, "-m", "tests.standin"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
async def stage(address: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """Yield the stand-in, told how the contract's clusters behave on a real server."""
    (tmp_path / "token").write_text(TOKEN)
    async with aiohttp.ClientSession() as session:
        control = RemoteControl(address, session)
        await control("require", token=TOKEN)
        wrong = {"type": "InvalidSkyPilotConfigError", "message": "Invalid task YAML: Found unsupported field 'bogus'."}
        for invalid in ("wrong-*", "secret-*"):
            await control("launches", invalid, error=wrong)
        await control("launches", "ct-slow-*", seconds=60)
        await control("jobs", "ct-good-*", log="setting up\nhello\n")
        await control("jobs", "ct-log-*", log="".join(f"line {number}\n" for number in range(1, 5)))
        await control("jobs", "ct-exit3-*", outcome="FAILED", log=EXIT_3)
        await control("jobs", "ct-setup-*", outcome="FAILED_SETUP")
        await control("jobs", "ct-long-*", seconds=600)
        credentials = SecretDirectory(tmp_path, "Secret sky/token")
        yield Stage(address, credentials, session, {"infra": "k8s"}, deadline_seconds=5, poll_seconds=0.02)


@pytest.mark.parametrize("case", [*BARE, *CLOUD], ids=lambda case: case.__name__)
async def test_the_stand_in_answers_as_the_contract_says(
    case: Callable[[Stage, Path], Awaitable[None]], stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await case(stage, tmp_path_factory.mktemp("credentials"))
