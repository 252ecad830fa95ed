"""The contract, asked of a real SkyPilot API server: the release's, or the one that the environment names.

    SKYOPERATOR_CONTRACT_ENDPOINT      its address
    SKYOPERATOR_CONTRACT_CREDENTIALS   a directory with the file token, or username and password

With -k bare it asks only what needs no cloud.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from skyoperator.sky import SecretDirectory

from tests.contract.cases import BARE, CLOUD
from tests.contract.stage import Stage
from tests.e2e.support import RELEASE, SMALL, port_forward, skypilot_credentials

CASES = [pytest.param(case, id=f"{kind}-{case.__name__}") for kind, of in (("bare", BARE), ("cloud", CLOUD)) for case in of]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Yield the server's address, through a port-forward if it is the release's."""
    if named := os.environ.get("SKYOPERATOR_CONTRACT_ENDPOINT"):
        yield named
        return
    with port_forward() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> SecretDirectory:
    """Return what the environment names, or the release's own Secret."""
    if named := os.environ.get("SKYOPERATOR_CONTRACT_CREDENTIALS"):
        return SecretDirectory(Path(named), named)
    directory = skypilot_credentials(tmp_path_factory.mktemp("release"))
    return SecretDirectory(directory, f"the credentials of release {RELEASE}")


@pytest.fixture
async def stage(endpoint: str, credentials: SecretDirectory) -> AsyncIterator[Stage]:
    """Yield the server.

    A port-forward reaches it from its own loopback, where it asks for no credentials unless a proxy's header is there
    (sky/server/auth/loopback.py).
    """
    async with aiohttp.ClientSession(headers={"X-Forwarded-For": "192.0.2.1"}) as session:
        yield Stage(endpoint, credentials, session, dict(SMALL), deadline_seconds=300, poll_seconds=1)


@pytest.mark.parametrize("case", CASES)
async def test_a_real_server_answers_as_the_contract_says(
    case: Callable[[Stage, Path], Awaitable[None]], stage: Stage, tmp_path: Path
) -> None:
    await case(stage, tmp_path)
