"""Runs as they are shown in Snowflake: each as the state has it, whatever was away or killed, and never twice."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from snowflake.connector import SnowflakeConnection

from ingestkit import steps
from ingestkit.warehouses import snowflake_runs
from tests.integration.world import BREAKS, FIRST, SECOND, THIRD, World
from tests.snowflake_server import (
    DRIVE,
    NEVER_ARRIVES,
    ROOT,
    SnowflakeServer,
    answered,
    asked,
    made_by,
    refused,
    snowflake_server,
)

pytestmark = [pytest.mark.services, pytest.mark.slow]

EVENTS = "SELECT PIPELINE, RUN_ID, RUN:status::VARCHAR FROM INGESTKIT_RUN_EVENT ORDER BY ADDED_AT, RUN_ID"
REFERENCE = ROOT / "docs/reference.md"
MIRROR = "INGESTKIT_RUN_EVENT"


@pytest.fixture(scope="module")
def server() -> Iterator[SnowflakeServer]:
    with snowflake_server() as started:
        yield started


@pytest.fixture
def link(server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnowflakeConnection]:
    """A database in which an operator has made the table and its view."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    database = server.database()
    with closing(server.connect(database)) as made:
        made_by(partial(asked, made), DRIVE, database=database, schema="PUBLIC", role=server.role)
        yield made
    server.heals()


@pytest.fixture
def mirrored(world: World, server: SnowflakeServer, link: SnowflakeConnection) -> World:
    settle(world, server, link)
    world.drop(FIRST)
    return world


def settle(world: World, server: SnowflakeServer, link: SnowflakeConnection, *, mirror_runs: bool = True) -> None:
    said = {
        "type": "snowflake",
        "account": server.account,
        "user": server.user,
        "role": server.role,
        "warehouse": server.warehouse,
        "database": link.database,
        "private_key": str(server.private_key),
        "endpoint": f"{server.protocol}://{server.host}:{server.port}",
        "lock_timeout": "30s",
        "network_timeout": "2s",
        "mirror_runs": mirror_runs,
    }
    world.settle({"connections.warehouse": said})


def in_the_state(world: World) -> list[tuple[Any, ...]]:
    query = "SELECT run_id, batch, status, verdict, attempt, phases_completed, counts, error FROM pipeline_run"
    return sorted((*row[:5], _read(row[5]), _read(row[6]), row[7]) for row in world.state(query))


def in_the_view(link: SnowflakeConnection) -> list[tuple[Any, ...]]:
    query = "SELECT RUN_ID, BATCH, STATUS, VERDICT, ATTEMPT, PHASES_COMPLETED, COUNTS, ERROR FROM INGESTKIT_RUN"
    return sorted((*row[:5], _read(row[5]), _read(row[6]), row[7]) for row in asked(link, query))


def _read(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def sent(server: SnowflakeServer, since: int) -> list[str]:
    """What was said of the mirror since then."""
    return [one.sql for one in server.sent[since:] if MIRROR in one.sql and one.tag]


def test_runs_are_shown_as_the_state_has_them(
    mirrored: World, server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    mirrored.drop(SECOND)
    before = len(server.sent)
    mirrored.does("run")
    assert in_the_view(link) == in_the_state(mirrored) != []
    assert len(in_the_view(link)) == 2
    assert [row[2] for row in asked(link, EVENTS)] == ["SUCCESS", "SUCCESS"]
    [first] = answered(link, "SELECT * FROM INGESTKIT_RUN WHERE BATCH = '20260101'")
    assert json.loads(first["MODELS"]) == ["a", "b"]
    assert first["ENDED_AT"] >= first["STARTED_AT"]
    # For each of the two runs one question and one answer to it, and no row is changed.
    assert [one.split()[0] for one in sent(server, before)] == ["SELECT", "INSERT"] * 2


def test_the_view_is_what_the_reference_says(mirrored: World, link: SnowflakeConnection) -> None:
    mirrored.drop({"20260101/a.csv": BREAKS})
    mirrored.refused(5, "run")
    section = REFERENCE.read_text().partition("* **Runs, for who looks there.**")[2]
    told, _, rest = section.partition("```sql\n")
    columns = [row["name"] for row in answered(link, "DESCRIBE VIEW INGESTKIT_RUN")]
    assert sorted(set(re.findall(r"`([A-Z_]+)`", told)) - {"INGESTKIT_RUN"}) == sorted(columns)
    query = rest.partition("```")[0].replace("RAW.PUBLIC", f"{link.database}.PUBLIC")
    [row] = answered(link, query)
    assert (row["PIPELINE"], row["BATCH"]) == ("p", "20260101")
    assert "load" in json.loads(row["PHASES_PENDING"])


def test_finding_nothing_new_leaves_the_warehouse_asleep(mirrored: World, server: SnowflakeServer) -> None:
    mirrored.does("run")
    before = len(server.sent)
    mirrored.does("run")
    assert server.sent[before:] == []


def test_a_run_that_failed_is_shown_and_how_it_ended_later(mirrored: World, link: SnowflakeConnection) -> None:
    mirrored.drop({"20260101/a.csv": BREAKS})
    mirrored.refused(5, "run", "--run-id", "one")
    [failed] = in_the_view(link)
    assert failed[2] == "FAILED"
    assert failed == in_the_state(mirrored)[0]
    mirrored.drop(FIRST)
    mirrored.does("run", "--run-id", "one")
    assert in_the_view(link) == in_the_state(mirrored)
    assert [row[2] for row in in_the_view(link)][-1] == "SUCCESS"
    assert "FAILED" in [row[2] for row in asked(link, EVENTS)]


def test_what_was_there_before_the_mirror_is_shown_too(
    world: World, server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    settle(world, server, link, mirror_runs=False)
    world.drop(FIRST, SECOND)
    world.does("run")
    assert asked(link, EVENTS) == []
    settle(world, server, link)
    world.does("run")
    assert in_the_view(link) == in_the_state(world) != []


def test_a_mirror_that_is_away_fails_no_run_and_is_written_by_the_next_one_that_finds_nothing_new(
    mirrored: World, server: SnowflakeServer, link: SnowflakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snowflake_runs, "PATIENCE", 2)
    server.breaks(NEVER_ARRIVES, f"INSERT INTO .*{MIRROR}", times=None)
    ended = mirrored.call("run")
    assert ended.code == 0
    [warned] = [one for one in ended.log if "mirror" in one["event"]]
    assert "the next run tries again" in warned["event"]
    assert asked(link, EVENTS) == []
    server.heals()
    mirrored.does("run")
    assert in_the_view(link) == in_the_state(mirrored) != []


def test_an_answer_that_is_lost_adds_nothing_twice(
    mirrored: World, server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    mirrored.does("run")
    mirrored.state("UPDATE pipeline SET runs_shown = NULL")
    mirrored.does("run")
    assert len(asked(link, EVENTS)) == 1


def test_rows_that_were_taken_away_come_back_with_the_next_run(mirrored: World, link: SnowflakeConnection) -> None:
    mirrored.does("run")
    asked(link, "DELETE FROM INGESTKIT_RUN_EVENT")
    mirrored.drop(SECOND)
    mirrored.does("run")
    assert in_the_view(link) == in_the_state(mirrored)
    assert len(in_the_view(link)) == 2


@pytest.mark.parametrize("step", ["run.done", "mirror.runs_added"])
def test_killed_between_state_and_mirror_the_next_run_shows_what_was_done(
    mirrored: World, link: SnowflakeConnection, step: str
) -> None:
    child = os.fork()
    if not child:
        vars(steps)["reached"] = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None
        mirrored.call("run")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    mirrored.does("run")
    assert in_the_view(link) == in_the_state(mirrored) != []
    assert len(asked(link, EVENTS)) == 1


def test_an_event_that_two_add_at_once_is_one_run_in_the_view(mirrored: World, link: SnowflakeConnection) -> None:
    mirrored.does("run")
    asked(link, "INSERT INTO INGESTKIT_RUN_EVENT SELECT * FROM INGESTKIT_RUN_EVENT")
    assert len(asked(link, EVENTS)) == 2
    assert in_the_view(link) == in_the_state(mirrored)


def test_what_a_process_that_slept_adds_late_does_not_count(mirrored: World, link: SnowflakeConnection) -> None:
    mirrored.does("run")
    older = "'old', PIPELINE, RUN_ID, TOKEN - 1, TOUCHED_AT, ADDED_AT, MODELS, PARSE_JSON('{\"status\": \"OPEN\"}')"
    asked(link, f"INSERT INTO INGESTKIT_RUN_EVENT SELECT {older} FROM INGESTKIT_RUN_EVENT")
    assert in_the_view(link) == in_the_state(mirrored)


def test_without_its_table_a_run_is_done_and_check_says_what_makes_it(
    mirrored: World, link: SnowflakeConnection
) -> None:
    asked(link, "DROP TABLE INGESTKIT_RUN_EVENT")
    ended = mirrored.call("run")
    assert ended.code == 0
    assert "sql/drive/snowflake.sql" in ended.err
    found = mirrored.call("check", "--output", "ndjson")
    assert found.code == 7
    lines = [json.loads(line) for line in found.out.splitlines()]
    [line] = [one for one in lines if one.get("what") == "p: mirror of runs"]
    assert "INGESTKIT_RUN_EVENT" in line["trouble"]
    assert "sql/drive/snowflake.sql" in line["fix"]


def test_each_right_that_the_script_gives_is_needed(
    mirrored: World, server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    [given] = re.findall(r"^GRANT (.+?) ON TABLE (.+) TO ", DRIVE.read_text(), re.MULTILINE)
    assert given == ("SELECT, INSERT", f"<% database %>.<% schema %>.{MIRROR}")
    for statement in ("SELECT EVENT_ID", "INSERT INTO"):
        server.breaks(refused(3001, "42501", "Insufficient privileges to operate on table"), f"{statement}.*{MIRROR}")
        ended = mirrored.call("run")
        assert ended.code == 0
        assert "the mirror of runs could not be written" in ended.err
    mirrored.does("run")
    assert in_the_view(link) == in_the_state(mirrored) != []


def test_a_rehearsal_shows_nothing(mirrored: World, link: SnowflakeConnection) -> None:
    assert "20260101" in mirrored.call("run", "--dry-run=data").out
    assert asked(link, EVENTS) == []


def test_many_runs_are_added_by_few_statements(
    mirrored: World, server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    settle(mirrored, server, link, mirror_runs=False)
    mirrored.drop(SECOND, THIRD)
    mirrored.does("run")
    settle(mirrored, server, link)
    before = len(server.sent)
    mirrored.does("run")
    assert [one.split()[0] for one in sent(server, before)] == ["SELECT", "INSERT"]
    assert len(in_the_view(link)) == 3
