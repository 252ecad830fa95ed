"""The contract, asked of a real SkyPilot API server.

    SKYOPERATOR_CONTRACT_ENDPOINT      its address, e.g. of a kubectl port-forward
    SKYOPERATOR_CONTRACT_CREDENTIALS   a directory with the file token, or username and password
    SKYOPERATOR_CONTRACT_RESOURCES     the task's resources as YAML, e.g. {infra: k8s, cpus: 0.5+, memory: 1+}

With -k bare it asks only what needs no cloud.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import yaml
from skyoperator.sky import SecretDirectory

from tests.contract.cases import BARE, CLOUD
from tests.contract.stage import Stage

CASES = [pytest.param(case, id=f"{kind}-{case.__name__}") for kind, of in (("bare", BARE), ("cloud", CLOUD)) for case in of]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Yield the server that the environment names."""
    missing = [key for key in ("ENDPOINT", "CREDENTIALS", "RESOURCES") if f"SKYOPERATOR_CONTRACT_{key}" not in os.environ]
    if missing:
        pytest.fail(f"No server to ask: set SKYOPERATOR_CONTRACT_{{{','.join(missing)}}}.")
    credentials = SecretDirectory(Path(os.environ["SKYOPERATOR_CONTRACT_CREDENTIALS"]), "Secret sky/contract")
    resources = yaml.safe_load(os.environ["SKYOPERATOR_CONTRACT_RESOURCES"])
    # A port-forward reaches the server from its own loopback, where it asks nobody for credentials unless a proxy's
    # header is there (sky/server/auth/loopback.py).
    async with aiohttp.ClientSession(headers={"X-Forwarded-For": "192.0.2.1"}) as session:
        endpoint = os.environ["SKYOPERATOR_CONTRACT_ENDPOINT"]
        yield Stage(endpoint, credentials, session, resources, deadline_seconds=300, poll_seconds=1)


@pytest.mark.parametrize("case", CASES)
async def test_a_real_server_answers_as_the_contract_says(
    case: Callable[[Stage, Path], Awaitable[None]], stage: Stage, tmp_path: Path
) -> None:
    await case(stage, tmp_path)
