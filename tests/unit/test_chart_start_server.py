"""How the API server's container prepares itself, with SkyPilot's and passlib's parts replaced."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.chart import CHART


class Users:
    """SkyPilot's table of users, as far as the script looks."""

    def __init__(self, passwords: dict[str, str]) -> None:
        self.rows = {user_id: SimpleNamespace(id=user_id, password=password) for user_id, password in passwords.items()}
        self.writes: list[str] = []

    def get_user(self, user_id: str) -> SimpleNamespace | None:
        return self.rows.get(user_id)

    def add_or_update_user(self, user: SimpleNamespace) -> None:
        self.writes.append(user.password)


OPERATOR_ID = "4b583376"  # what SkyPilot calls the user `operator`: the first 8 digits of the MD5 of its name


@pytest.fixture(autouse=True)
def sky(monkeypatch: pytest.MonkeyPatch) -> Users:
    """Make `from sky import global_user_state` and its like find these; verify() calls h(x) the hash of x."""
    users = Users({OPERATOR_ID: "h(old)"})
    server_common = ModuleType("sky.server.common")
    vars(server_common)["crypt_ctx"] = SimpleNamespace(verify=lambda password, stored: stored == f"h({password})")
    passlib_hash = ModuleType("passlib.hash")
    vars(passlib_hash)["apr_md5_crypt"] = SimpleNamespace(hash=lambda password: f"h({password})")
    package = ModuleType("sky")
    vars(package)["global_user_state"] = users
    fakes = {
        "sky": package,
        "sky.server": ModuleType("sky.server"),
        "sky.server.common": server_common,
        "passlib": ModuleType("passlib"),
        "passlib.hash": passlib_hash,
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    return users


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("start_server", CHART / "files" / "start_server.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("SEED", "CREDENTIALS", "STATE"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(module, name, folder)
    return module


@pytest.fixture
def environment(script: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables that the server is started with."""
    variables: dict[str, str] = {}
    monkeypatch.setattr(script, "os", SimpleNamespace(environ=variables, execvp=lambda *command: variables.update(command=str(command[1]))))
    return variables


def set_credentials(script: Any, username: str, password: str) -> None:
    (script.CREDENTIALS / "username").write_text(username)
    (script.CREDENTIALS / "password").write_text(password)


def test_config_and_catalogs_replace_those_of_the_last_start(script: Any) -> None:
    (script.STATE / "config.yaml").write_text("old")
    (script.STATE / "state.db").write_text("kept")
    (script.SEED / "catalogs" / "v8").mkdir(parents=True)
    (script.SEED / "catalogs" / "v8" / "images.csv").write_text("Tag")
    (script.SEED / "config.yaml").write_text("new")
    script.copy_seed()
    files = {str(path.relative_to(script.STATE)): path.read_text() for path in script.STATE.rglob("*") if path.is_file()}
    assert files == {"config.yaml": "new", "catalogs/v8/images.csv": "Tag", "state.db": "kept"}


def test_the_server_starts_with_the_hash_of_the_password(script: Any, sky: Users, environment: dict[str, str]) -> None:
    set_credentials(script, "operator", "new\n")
    script.main()
    assert environment["SKYPILOT_INITIAL_BASIC_AUTH"] == "operator:h(new)"
    assert environment["command"] == str(["sky", "api", "start", "--deploy", "--foreground"])
    assert sky.writes == [], "a server without state makes the user itself"


@pytest.mark.parametrize(("password", "writes"), [("new", ["h(new)"]), ("old", [])])
def test_a_changed_password_is_stored(script: Any, sky: Users, environment: dict[str, str], password: str, writes: list[str]) -> None:
    (script.STATE / "state.db").touch()
    set_credentials(script, "operator", password)
    script.main()
    assert sky.writes == writes
    assert "command" in environment


def test_an_external_database_is_asked_too(script: Any, sky: Users, environment: dict[str, str]) -> None:
    environment["SKYPILOT_DB_CONNECTION_URI"] = "postgresql://db/sky"
    set_credentials(script, "operator", "new")
    script.main()
    assert sky.writes == ["h(new)"]


def test_an_unknown_user_is_left_to_skypilot_which_makes_it_admin(script: Any, sky: Users, environment: dict[str, str]) -> None:
    (script.STATE / "state.db").touch()
    set_credentials(script, "somebody", "new")
    script.main()
    assert sky.writes == []
    assert environment["SKYPILOT_INITIAL_BASIC_AUTH"] == "somebody:h(new)"


@pytest.mark.parametrize(("username", "password"), [("", "p"), ("operator", ""), ("oper:ator", "p")])
def test_a_useless_secret_stops_the_start(script: Any, environment: dict[str, str], username: str, password: str) -> None:
    set_credentials(script, username, password)
    with pytest.raises(SystemExit, match="credentials Secret needs"):
        script.main()
    assert "command" not in environment
