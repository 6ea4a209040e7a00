"""Processes that die while they publish into Snowflake: what they had open there stays open, and holds its tables."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from snowflake.connector import SnowflakeConnection as Link
from snowflake.connector.errors import ProgrammingError

from ingestkit.settings import SnowflakeConnection
from ingestkit.warehouses.snowflake_detached import Work
from ingestkit.warehouses.snowflake_login import account_of
from ingestkit.warehouses.snowflake_sql import LONGEST_NAME, Names
from tests.integration.at_snowflake import AtSnowflake, account, loaded_once
from tests.snowflake_server import Sent, asked, delayed

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, world = account, loaded_once

ROOT = Path(__file__).parents[2]
INTO_A_TABLE = r'^COPY INTO "D\w+"'
T = TypeVar("T")


def killed(world: AtSnowflake, step: str, *arguments: str) -> None:
    """A run that ends itself at a step."""
    launch = [sys.executable, "-m", "tests.faults.launch", "--kill", step, "--"]
    command = [*launch, "--project", str(world.root), "run", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def transactions(world: AtSnowflake) -> list[str]:
    with closing(world.server.connect(world.account_database)) as link:
        return [str(row[3]) for row in asked(link, "SHOW TRANSACTIONS")]


def aborts(world: AtSnowflake) -> list[str]:
    return [one.outcome for one in world.sent if "SYSTEM$ABORT_TRANSACTION" in one.sql]


@pytest.mark.parametrize("step", ["load.fenced", "load.rows_written", "load.before_commit"])
def test_what_a_killed_process_left_open_is_ended_by_the_next_run(world: AtSnowflake, step: str) -> None:
    """The service itself would end it after five minutes."""
    killed(world, step)
    assert len(transactions(world)) == 1
    began = time.monotonic()
    world.does("run")
    assert time.monotonic() - began < 60
    world.has(1, 2)
    assert aborts(world) == ["done"]
    assert transactions(world) == []


def test_a_copy_that_goes_on_after_its_process_died_is_never_seen(world: AtSnowflake) -> None:
    world.server.breaks(delayed(15), INTO_A_TABLE)
    process = world.start("run")
    copy = until(lambda: next((one for one in world.sent if one.outcome == "delayed"), None))
    assert re.match(INTO_A_TABLE, copy.sql)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    world.does("run")
    until(lambda: outcome(world, copy) != "delayed")
    assert outcome(world, copy) == "000615"
    world.has(1, 2)
    assert transactions(world) == []


def outcome(world: AtSnowflake, statement: Sent) -> str:
    return next(one.outcome for one in world.sent if one.query == statement.query)


def until(told: Callable[[], T | None]) -> T:
    """What is told once there is something to tell."""
    end = time.monotonic() + 60
    while not (found := told()):
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.02)
    return found


def test_what_another_model_or_pipeline_has_open_is_let_alone(world: AtSnowflake) -> None:
    """A second command may be at work on the rest of the pipeline: its fence is waited for, and not taken."""
    killed(world, "load.fenced", "--model", "a")
    [left] = transactions(world)
    told = world.refused(8, "run", "--model", "b")
    assert "is still locked after 4 s" in told
    assert "what a dead process holds goes after five minutes" in told
    assert transactions(world) == [left]
    world.server.patience(0.5)
    world.does("run", "--model", "b")
    assert aborts(world) == []
    world.does("run")
    world.has(1, 2)


def test_what_is_left_open_is_no_hindrance_to_the_fence_of_a_new_model(world: AtSnowflake) -> None:
    killed(world, "load.fenced")
    world.set_up({"models.c": {"key": ["id"], "load": "replace", "columns": {"id": {"required": True}}}})
    world.does("run")
    world.has(1, 2)
    ended = [one.outcome for one in world.server.sent[world.begun :] if "SYSTEM$ABORT_TRANSACTION" in one.sql]
    assert ended == ["done"]


@pytest.fixture
def stranger(world: AtSnowflake) -> Iterator[Link]:
    """Another user of the account."""
    world.server.knows("STRANGER", token="of-a-stranger")
    said = {"user": "STRANGER", "authenticator": "oauth", "token": "of-a-stranger", "private_key_file": None}
    with closing(world.server.connect(world.account_database, **said)) as link:
        yield link


def test_what_another_user_left_open_goes_by_itself(world: AtSnowflake, stranger: Link) -> None:
    [(state,)] = world.state("SELECT state_id FROM pipeline")
    asked(stranger, f"BEGIN NAME {work(world, 1, 'a', 'b', state=state).name}")
    asked(stranger, "UPDATE ingestkit_fence_p SET token = token")
    assert "is still locked after 4 s" in world.refused(8, "run")
    world.server.patience(0.5)
    world.does("run")
    world.has(1, 2)
    assert aborts(world) == []


def test_a_user_ends_no_transaction_of_another_in_the_double(world: AtSnowflake, stranger: Link) -> None:
    with closing(world.server.connect(world.account_database)) as mine:
        asked(mine, "BEGIN NAME somebodys")
        asked(mine, "DELETE FROM a")
        [(number,)] = asked(mine, "SELECT CURRENT_TRANSACTION()")
        assert asked(stranger, "SHOW TRANSACTIONS") == []
        with pytest.raises(ProgrammingError, match="does not exist"):
            asked(stranger, f"SELECT SYSTEM$ABORT_TRANSACTION({number})")


def work(world: AtSnowflake, token: int, *models: str, pipeline: str = "p", state: str = "s") -> Work:
    account = account_of(SnowflakeConnection.model_validate(world.connection), world.root)
    return Work(account, pipeline, state, token, frozenset(models))


def test_a_name_tells_whose_a_transaction_is(world: AtSnowflake) -> None:
    mine = work(world, 7, "a", "b")
    spelled = replace(mine, account=replace(mine.account, schema="public"))
    for older in (work(world, 6, "a"), work(world, 6, "b", "c"), mine, spelled):
        assert mine.precedes(older.name)
    strangers = [
        work(world, 8, "a"),
        work(world, 6, "c"),
        work(world, 6, "a", pipeline="p2"),
        work(world, 6, "a", state="other"),
        replace(spelled, account=replace(spelled.account, names=Names(exact=True))),
    ]
    for stranger in strangers:
        assert not mine.precedes(stranger.name)
    for name in ("", "INGESTKIT", "0b0ae4a1-0b0a-4b0a-8b0a-0b0ae4a10b0a", f"X{mine.name}", f"{mine.name[:18]}_x_y"):
        assert not mine.precedes(name)


def test_a_name_has_room_for_no_more_than_the_service_takes(world: AtSnowflake) -> None:
    many = work(world, 2**62, *(f"model {number}" for number in range(100)))
    assert LONGEST_NAME - 9 < len(many.name) <= LONGEST_NAME
    assert many.precedes(many.name)
