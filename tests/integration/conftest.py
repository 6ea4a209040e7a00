"""The small project every test of this folder begins with."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestkit.states import migrate
from tests.doubles.receivers import receiving
from tests.integration.alerted import SECRET, Told
from tests.integration.world import World
from tests.services import PostgresServer, postgres

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def shared_state() -> Iterator[PostgresServer | None]:
    """With INGESTKIT_TEST_STATE=postgresql every state lies in a database of a server; else in a file."""
    if os.environ.get("INGESTKIT_TEST_STATE") != "postgresql":
        yield None
        return
    with postgres() as server:
        server.does("CREATE DATABASE template")
        migrate.upgrade(server.url("template"))
        yield server


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], shared_state: PostgresServer | None) -> World:
    url = None
    if shared_state is not None:
        name = f"state{next(NUMBERS)}"
        shared_state.does(f"CREATE DATABASE {name} TEMPLATE template")
        url = shared_state.url(name)
    made = World(tmp_path, capsys, url)
    made.settle()
    made.set_up()
    (tmp_path / "drops").mkdir()
    return made


@pytest.fixture
def told(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    with receiving() as receiver:
        monkeypatch.setenv("HOOK", receiver.url)
        monkeypatch.setenv("HOOK_TOKEN", SECRET)
        made = Told(world, receiver)
        made.settle()
        yield made
