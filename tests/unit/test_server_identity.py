"""Which server is it: asked when another may have taken its place, and never taken for granted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from skyoperator.sky import SkyPilotRejectsUs, SkyPilotUnreachable, parse
from skyoperator.snapshot import NOTHING_YET, UNBROKEN_SECONDS, Snapshot, take

from tests.unit.fakes import FakeSky

NOW = datetime(2026, 11, 25, tzinfo=UTC)
OURS: dict[str, Any] = {"id": "fcd1e5cf", "name": "fcd1e5cf", "created_at": 1795641415, "role": "admin", "user_type": "system"}
SYSTEM = {**OURS, "id": "skypilot-system", "name": "skypilot-system"}
OPERATOR = {"id": "4b583376", "name": "operator", "created_at": 1795641000, "role": "admin", "user_type": "basic"}


async def looks(sky: FakeSky, *, times: int = 1, after: Snapshot = NOTHING_YET) -> Snapshot:
    for _ in range(times):
        after = await take(sky, after, NOW)
    return after


def since(seen: Snapshot, seconds: float) -> Snapshot:
    """The same look, so many seconds longer ago."""
    return replace(seen, taken_at=seen.taken_at - seconds, ended_at=seen.ended_at - seconds)


async def test_a_server_that_goes_on_answering_is_asked_once() -> None:
    sky = FakeSky(server="first")
    seen = await looks(sky, times=5)
    assert (seen.server, len(sky.asked("identity"))) == ("first", 1)


async def test_after_an_outage_it_may_be_another() -> None:
    sky = FakeSky(server="first")
    seen = await looks(sky)
    sky.failures["clusters"] = SkyPilotUnreachable("HTTP 401")
    away = await looks(sky, after=seen)
    assert (away.server, away.active, away.clusters) == ("", None, None)
    sky.failures.clear()
    sky.server = "second"
    assert (await looks(sky, after=away)).server == "second"


async def test_after_a_time_without_looks_it_may_be_another() -> None:
    sky = FakeSky(server="first")
    seen = await looks(sky)
    sky.server = "second"
    assert (await looks(sky, after=since(seen, UNBROKEN_SECONDS - 5))).server == "first"
    assert (await looks(sky, after=since(seen, UNBROKEN_SECONDS + 5))).server == "second"


@pytest.mark.parametrize("failure", [SkyPilotUnreachable("HTTP 403"), ValueError("garbage")])
async def test_nothing_is_known_of_a_server_that_does_not_tell(failure: Exception) -> None:
    sky = FakeSky(failures={"identity": failure})
    seen = await looks(sky)
    assert (seen.active, seen.clusters, seen.server) == (None, None, "")
    assert str(failure) in seen.complaint
    assert sky.asked("clusters") == []


async def test_a_server_that_comes_back_as_a_stranger_is_news() -> None:
    """What to do about it is in the second complaint; the first was only that nobody answered."""
    sky = FakeSky(failures={"clusters": SkyPilotUnreachable("refused")})
    seen = await looks(sky)
    for failure, told in (
        (SkyPilotUnreachable("timed out"), "refused"),
        (SkyPilotRejectsUs("HTTP 401, do this"), "HTTP 401, do this"),
        (SkyPilotRejectsUs("HTTP 401, do that"), "HTTP 401, do this"),
    ):
        sky.failures["clusters"] = failure
        seen = await looks(sky, after=seen)
        assert seen.complaint == told


def test_it_is_named_after_the_oldest_user_of_skypilots_own() -> None:
    name = "fcd1e5cf@2026-11-25T21:16:55Z"
    assert parse.identity([OPERATOR, SYSTEM, OURS]) == name
    later = {**SYSTEM, "id": "a-new-one", "created_at": OURS["created_at"] + 1}
    nameless = {"id": "0", "name": "from an old version", "created_at": None, "user_type": "system"}
    assert parse.identity([nameless, later, OURS]) == name, "users of a newer SkyPilot, or from before created_at, change nothing"


def test_another_database_is_another_server() -> None:
    assert parse.identity([{**OURS, "created_at": OURS["created_at"] + 1}]) != parse.identity([OURS])
    assert parse.identity([{**OURS, "id": "00000000"}]) != parse.identity([OURS])


@pytest.mark.parametrize("users", [[], [OPERATOR]])
def test_without_such_a_user_nobody_knows(users: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match="no user of SkyPilot's own"):
        parse.identity(users)
