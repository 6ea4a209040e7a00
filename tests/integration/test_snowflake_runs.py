"""Whole runs into Snowflake: what a load leaves of its queries, and of a row that the target does not take."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import object_stores
from tests.integration.at_snowflake import account
from tests.integration.world import FIRST, SECOND, World
from tests.snowflake_server import SnowflakeServer, asked

pytestmark = [pytest.mark.services, pytest.mark.slow]

server = account


@pytest.fixture
def database(server: SnowflakeServer) -> str:
    return server.database()


@pytest.fixture
def world(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    server: SnowflakeServer,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """The small project with its target in a database of the account."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    made = World(tmp_path, capsys)
    made.settle({"connections.warehouse": server.connection(database)})
    made.set_up()
    (tmp_path / "drops").mkdir()
    return made


def target(server: SnowflakeServer, database: str, *statements: str) -> list[tuple[Any, ...]]:
    with closing(server.connect(database)) as link:
        return [asked(link, one) for one in statements][-1]


def left(world: World, model: str) -> dict[str, Any]:
    """The sidecar of the load, as people are shown it."""
    found: dict[str, Any] = json.loads((world.root / f"state/runs/p/p.20260101.1/load.{model}.json").read_text())
    return found


def test_the_sidecar_of_a_load_names_the_queries_that_wrote_its_rows_and_the_files_they_came_from(
    world: World, server: SnowflakeServer, database: str
) -> None:
    world.drop(FIRST)
    world.does("run")
    assert target(server, database, "SELECT id, n FROM a ORDER BY id") == [("1", 10), ("2", 20)]
    kinds = {one.query: one.sql.partition(" ")[0] for one in server.sent}
    for model, wanted in (("a", ["COPY"]), ("b", ["COPY", "MERGE"])):
        said = left(world, model)["details"]["warehouse"]
        assert [kinds[one] for one in said["queries"]] == wanted
        assert list(said["files"].values()) == [2]
    assert world.does("check")


def test_a_row_that_the_target_does_not_take_is_named_in_error_stage_row_and_sidecar(
    world: World, server: SnowflakeServer, database: str
) -> None:
    world.set_up({"models.a.load": "merge"})
    world.drop(FIRST)
    world.does("run")
    target(
        server, database, "CREATE OR REPLACE TABLE a AS SELECT * FROM a", "ALTER TABLE a ALTER COLUMN n SET NOT NULL"
    )
    world.drop({"20260108/a.csv": "id,n\n3,30\n4,\n", "20260108/b.csv": FIRST["20260101/b.csv"]})
    ended = world.call("run")
    assert ended.code == 7
    told = "table a: N does not take a value of record 2 of 20260108/a.csv: "
    assert told in ended.err
    row = world.stages("p.20260108.1")["load", "a"]
    assert told in row["error"]
    shown = json.loads((world.root / "state/runs/p/p.20260108.1/load.a.json").read_text())
    assert shown["status"] == row["status"] == "FAILED"
    assert shown["error"] == row["error"]
    assert {name: shown["details"][name] for name in ("file", "record", "column")} == {
        "file": "20260108/a.csv",
        "record": 2,
        "column": "N",
    }
    [sent] = [one for one in server.sent if one.query == shown["details"]["query"]]
    assert sent.sql.startswith("MERGE")
    assert target(server, database, "SELECT id, n FROM a ORDER BY id") == [("1", 10), ("2", 20)]


def test_what_others_have_set_on_a_table_is_said_by_check_plan_and_load(
    world: World, server: SnowflakeServer, database: str
) -> None:
    world.drop(FIRST)
    world.does("run")
    target(server, database, "ALTER TABLE b SET ERROR_LOGGING = TRUE")
    server.streams("CHANGES", f"{database}.PUBLIC.A")
    world.drop(SECOND)
    for command in ("check", "plan", "run"):
        ended = world.call(command)
        assert ended.code == 0, ended.err
        assert "table b logs errors" in ended.err
        assert "stream CHANGES is on table a, which loads replace" in ended.err
    assert target(server, database, "SELECT count(*) FROM b") == [(3,)]


def test_a_lake_that_a_stage_shows_is_loaded_from_and_one_it_does_not_show_is_named(
    world: World, server: SnowflakeServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_stores.azurite() as azure:
        server.reads(azure=azure.connection_string)
        monkeypatch.setenv("LAKE", azure.connection_string)
        lake = {**azure.connection(), "connection_string": "${env:LAKE}"}
        world.settle(
            {"connections.lake": lake, "connections.warehouse": server.connection(database, stage="LAKE_STAGE")}
        )
        world.drop(FIRST)
        url = f"azure://{azure.account}.blob.core.windows.net/{lake['url'].partition('//')[2].partition('@')[0]}/"
        target(server, database, f"CREATE STAGE lake_stage URL = '{url}other/' STORAGE_INTEGRATION = LAKE")
        ended = world.call("check")
        assert ended.code == 7
        assert "stage LAKE_STAGE shows" in ended.out
        assert f"and the lake is {url}" in ended.out
        assert world.call("run").code == 7
        target(server, database, f"CREATE OR REPLACE STAGE lake_stage URL = '{url}' STORAGE_INTEGRATION = LAKE")
        assert world.does("check")
        world.does("run")
        assert target(server, database, "SELECT id, n FROM a ORDER BY id") == [("1", 10), ("2", 20)]
        assert not [one for one in server.sent if one.sql.startswith("PUT") and database in one.sql]
        with azure.service() as service, service.get_container_client(url.split("/")[3]) as container:
            assert not [one for one in container.list_blob_names() if one.startswith("_staged/")]
