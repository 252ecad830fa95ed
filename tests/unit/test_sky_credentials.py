"""The user that the controller makes for itself: one where there is none, never one in place of another."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from skyoperator.sky import MintedLogin, SecretDirectory, SkyPilotClient, SkyPilotUnreachable

from tests.standin.control import Control
from tests.standin.server import serving


@dataclass
class Store:
    """A LoginStore in memory. `writes` counts what was written into it, by whomever."""

    stored: str = ""
    failure: Exception | None = None
    raced_by: str = ""
    writes: list[str] = field(default_factory=list)
    advice: str = "Empty the Secret."

    async def login(self) -> str:
        return self.stored

    async def keep(self, login: str) -> bool:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.stored = self.raced_by or login
        self.writes.append(self.stored)
        return not self.raced_by


@asynccontextmanager
async def controller(control: Control, store: Store, tmp: Path) -> AsyncIterator[SkyPilotClient]:
    """A controller's client of a server that makes `operator` its administrator."""
    control.require(username="operator", password="p")
    (tmp / "username").write_text("operator")
    (tmp / "password").write_text("p")
    async with (
        serving(control) as address,
        SkyPilotClient.connect(address, SecretDirectory(tmp, "the password")) as mounted,
        SkyPilotClient.connect(address, MintedLogin(store, mounted.mint_login)) as sky,
    ):
        yield sky


def add_user(control: Control, name: str, password: str) -> None:
    digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    control.users.imported[name] = "{SHA}" + b64encode(digest).decode()


async def test_a_user_is_made_stored_and_used_by_everybody(tmp_path: Path) -> None:
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        await asyncio.gather(*(sky.check() for _ in range(5)))
        assert store.writes == [store.stored]
        assert list(control.users.imported) == [store.stored.partition(":")[0]]
        assert control.world.calls["POST /users/import"] == 1


async def test_a_stored_login_is_used(tmp_path: Path) -> None:
    control, store = Control(), Store("old:p:w")
    async with controller(control, store, tmp_path) as sky:
        add_user(control, "old", "p:w")
        await sky.check()
    assert store.writes == []


async def test_a_wiped_server_is_not_given_a_new_user_until_somebody_empties_the_store(tmp_path: Path) -> None:
    """The one thing that must not happen: to heal by itself, and to find an empty server that seems to be ours."""
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        first = await sky.identity()
        control.wipe()
        for _ in range(3):
            with pytest.raises(SkyPilotUnreachable, match=r"HTTP 401.*Empty the Secret\."):
                await sky.clusters()
        assert (len(store.writes), control.users.imported) == (1, {})
        store.stored = ""
        assert await sky.clusters() == ()
        assert await sky.identity() != first


async def test_a_changed_login_is_found_in_the_store(tmp_path: Path) -> None:
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        identity = await sky.identity()
        control.users.imported.clear()
        add_user(control, "another", "p")
        with pytest.raises(SkyPilotUnreachable, match="HTTP 401"):
            await sky.check()
        store.stored = "another:p"
        assert await sky.identity() == identity


async def test_a_lost_store_does_not_make_it_another_server(tmp_path: Path) -> None:
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        identity = await sky.identity()
        control.users.imported.clear()
        store.stored = ""
        with pytest.raises(SkyPilotUnreachable):
            await sky.check()
        assert await sky.identity() == identity


async def test_what_cannot_be_stored_is_not_used_nor_minted_again_and_again(tmp_path: Path) -> None:
    control, store = Control(), Store(failure=SkyPilotUnreachable("Can't write Secret"))
    async with controller(control, store, tmp_path) as sky:
        for _ in range(3):
            with pytest.raises(SkyPilotUnreachable, match="Can't write Secret"):
                await sky.check()
        assert control.world.calls["POST /users/import"] == 1
        store.failure = None
        await sky.check()
        assert list(control.users.imported) == [store.stored.partition(":")[0]]


async def test_who_stored_first_is_heeded(tmp_path: Path) -> None:
    control, store = Control(), Store(raced_by="of-another:p")
    async with controller(control, store, tmp_path) as sky:
        with pytest.raises(SkyPilotUnreachable, match="Somebody else has just stored a login"):
            await sky.check()
        add_user(control, "of-another", "p")
        await sky.check()
    assert store.writes == ["of-another:p"]


@pytest.mark.parametrize("kind", ["lost", "before", "after"])
async def test_a_mint_without_an_answer_is_tried_again_under_another_name(tmp_path: Path, kind: str) -> None:
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        control.fault("import", kind)
        with pytest.raises(SkyPilotUnreachable):
            await sky.check()
        assert store.stored == ""
        await sky.check()
    assert store.stored.partition(":")[0] in control.users.imported


async def test_a_user_that_was_not_made_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "taken")
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        add_user(control, "skyoperator-taken", "p")
        with pytest.raises(SkyPilotUnreachable, match=r"made no user for us.*already exists"):
            await sky.check()
    assert store.writes == []


async def test_a_wrong_password_names_the_password_and_not_the_store(tmp_path: Path) -> None:
    control, store = Control(), Store()
    async with controller(control, store, tmp_path) as sky:
        (tmp_path / "password").write_text("wrong")
        with pytest.raises(SkyPilotUnreachable, match=r"HTTP 401.*Check the password"):
            await sky.check()
    assert store.writes == []
