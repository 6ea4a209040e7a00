"""Each right that the role is granted is needed, and said to be missing where it is: before a run, and by one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.at_snowflake import AtSnowflake, at_snowflake
from tests.snowflake_server import DRIVE, SnowflakeServer, made_by, snowflake_server

pytestmark = [pytest.mark.services, pytest.mark.slow]

GRANTS = Path(__file__).parents[2] / "sql/grants/warehouse_snowflake.sql"
RIGHTS = {
    ("USAGE", "WAREHOUSE"): "it lacks USAGE ON WAREHOUSE LOADING",
    ("USAGE", "DATABASE"): "Database '{database}' does not exist or not authorized",
    ("USAGE", "SCHEMA"): "Schema '{database}.PUBLIC' does not exist or not authorized",
    ("CREATE TABLE", "SCHEMA"): 'lacks CREATE TABLE ON SCHEMA "{database}"."PUBLIC"',
    ("CREATE STAGE", "SCHEMA"): 'lacks CREATE STAGE ON SCHEMA "{database}"."PUBLIC"',
}
# What a run meets first; it asks for no list of grants.
BY_A_RUN = {
    ("CREATE TABLE", "SCHEMA"): "does not allow CREATE TABLE",
    ("CREATE STAGE", "SCHEMA"): "does not allow CREATE STAGE",
}


@pytest.fixture
def poor() -> Iterator[SnowflakeServer]:
    """An account for one test, which takes rights away for good."""
    with snowflake_server() as started:
        yield started


@pytest.fixture
def world(
    poor: SnowflakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AtSnowflake]:
    with at_snowflake(poor, tmp_path, capsys, monkeypatch) as made:
        made.waits(1)
        yield made


def test_the_grants_are_those_that_are_proved() -> None:
    told = re.findall(r"^GRANT (.+?) ON (\w+) ", GRANTS.read_text(), re.MULTILINE)
    assert set(told) == set(RIGHTS)


@pytest.mark.parametrize(("privilege", "kind"), list(RIGHTS))
def test_a_right_that_is_missing_is_named_by_check_and_by_a_run(world: AtSnowflake, privilege: str, kind: str) -> None:
    name = {"WAREHOUSE": "LOADING", "DATABASE": world.account_database, "SCHEMA": f"{world.account_database}.PUBLIC"}
    assert world.does("check")
    world.server.takes(privilege, kind, name[kind])
    wanted = RIGHTS[privilege, kind].format(database=world.account_database)
    checked = world.call("check")
    assert checked.code == 7
    [line] = [line for line in checked.out.splitlines() if wanted in line]
    assert "p: warehouse" in line
    assert "sql/grants/warehouse_snowflake.sql" in checked.out
    told = world.refused(7, "run")
    assert BY_A_RUN.get((privilege, kind), wanted) in told
    assert "sql/grants/warehouse_snowflake.sql" in told


@pytest.mark.parametrize(
    ("said", "place"),
    [({"database": "NODB"}, "NODB.public"), ({"schema": "none"}, "{}.none"), ({"names": "exact"}, "{}.public")],
)
def test_a_place_that_is_not_there_is_named_by_check_and_by_a_run(
    world: AtSnowflake, said: dict[str, str], place: str
) -> None:
    world.settle({f"connections.warehouse.{key}": value for key, value in ({"schema": "public"} | said).items()})
    wanted = f"ingestkit/{place.format(world.account_database)} does not know it, or does not show it to this role"
    checked = world.call("check")
    assert checked.code == 7
    assert wanted in checked.out
    assert "look at database, schema and role of the connection" in checked.out
    assert wanted in world.refused(7, "run")


def test_rights_to_make_what_is_there_are_not_asked_for(world: AtSnowflake) -> None:
    world.does("run")
    world.server.takes("CREATE STAGE", "SCHEMA")
    world.waits(2)
    world.does("run")
    world.has(1, 2)
    world.server.takes("CREATE TABLE", "SCHEMA")
    assert world.does("check")
    world.waits(3)
    world.does("run")
    world.has(1, 2, 3)
    world.lose_state()
    assert world.does("state", "adopt", "p", "--reason", "the disk was lost", "--yes")


@pytest.mark.parametrize("privilege", ["CREATE TABLE", "CREATE STAGE"])
def test_a_right_to_make_things_that_another_role_of_the_user_has_is_none(world: AtSnowflake, privilege: str) -> None:
    world.server.takes(privilege, "SCHEMA", f"{world.account_database}.PUBLIC", to="ROLE READER")
    checked = world.call("check")
    assert checked.code == 7
    assert f'role LOADER lacks {privilege} ON SCHEMA "{world.account_database}"."PUBLIC"' in checked.out
    assert f"does not allow {privilege}" in world.refused(7, "run")


def test_a_table_that_a_role_of_the_database_owns_for_this_one_is_loaded(world: AtSnowflake) -> None:
    world.does("run")
    world.server.takes("OWNERSHIP", "TABLE", f"{world.account_database}.PUBLIC.A", to="DATABASE_ROLE LOADING")
    world.waits(2)
    assert world.does("check")
    world.does("run")
    world.has(1, 2)


def test_a_right_that_is_given_to_a_share_is_nobodys_here(world: AtSnowflake) -> None:
    world.does("run")
    table = f"{world.account_database}.PUBLIC.A"
    world.server.takes("OWNERSHIP", "TABLE", table)
    world.server.takes("SELECT", "TABLE", table, to="SHARE ACME.SHOWN")
    checked = world.call("check")
    assert checked.code == 7
    assert "table a belongs to role SOMEBODY_ELSE, and role LOADER lacks SELECT on it" in checked.out


def test_fences_that_cannot_be_made_are_told_before_a_run(world: AtSnowflake) -> None:
    """Where somebody else has made the target."""
    world.set_up({"models.b": None})
    lineage = "_BATCH VARCHAR, _RUN_ID VARCHAR, _SOURCE_FILE VARCHAR, _RECORD_NO NUMBER(19,0)"
    world.target(f"CREATE TABLE A (ID VARCHAR, N NUMBER(19,0), {lineage})")
    assert world.does("check")
    world.server.takes("CREATE TABLE", "SCHEMA")
    checked = world.call("check")
    assert checked.code == 7
    assert f'lacks CREATE TABLE ON SCHEMA "{world.account_database}"."PUBLIC"' in checked.out


@pytest.mark.parametrize("lacks", ["TRUNCATE", "INSERT"])
def test_a_table_of_another_role_that_cannot_be_written_is_named_with_what_gives_it(
    world: AtSnowflake, lacks: str
) -> None:
    world.does("run")
    table = f"{world.account_database}.PUBLIC.A"
    world.server.takes("OWNERSHIP", "TABLE", table)
    world.server.takes(lacks, "TABLE", table)
    world.waits(2)
    checked = world.call("check")
    assert checked.code == 7
    for told in (checked.out, world.refused(7, "run")):
        assert f"table a belongs to role SOMEBODY_ELSE, and role LOADER lacks {lacks} on it" in told
        assert f'GRANT OWNERSHIP ON TABLE "{world.account_database}"."PUBLIC"."A" TO ROLE "LOADER"' in told


@pytest.mark.parametrize("lacks", ["UPDATE", "DELETE", "TRUNCATE"])
def test_a_model_of_full_files_and_changes_needs_the_rights_of_both(world: AtSnowflake, lacks: str) -> None:
    world.set_up({"models.a.delta": "(?i)delta"})
    world.does("run")
    table = f"{world.account_database}.PUBLIC.A"
    world.server.takes("OWNERSHIP", "TABLE", table)
    assert world.does("check")
    world.server.takes(lacks, "TABLE", table)
    world.waits(2)
    checked = world.call("check")
    assert checked.code == 7
    for told in (checked.out, world.refused(7, "run")):
        assert f"table a belongs to role SOMEBODY_ELSE, and role LOADER lacks {lacks} on it" in told


REJECTS = {"models.a.rejects_table": "places", "models.b": None}


@pytest.mark.parametrize("lacks", ["SELECT", "INSERT", "DELETE"])
def test_a_table_of_rejects_is_looked_at_as_targets_are(world: AtSnowflake, lacks: str) -> None:
    world.set_up(REJECTS)
    world.does("run")
    table = f"{world.account_database}.PUBLIC.A__REJECTS"
    world.target("ALTER TABLE A__REJECTS SET ERROR_LOGGING = TRUE")
    world.server.takes("OWNERSHIP", "TABLE", table)
    ended = world.call("check")
    assert ended.code == 0
    assert "table a__rejects logs errors" in ended.err
    assert "table a__rejects belongs to role SOMEBODY_ELSE: no column can be added" in ended.err
    world.server.takes(lacks, "TABLE", table)
    world.waits(2)
    checked = world.call("check")
    assert checked.code == 7
    for told in (checked.out, world.refused(7, "run")):
        assert f"table a__rejects belongs to role SOMEBODY_ELSE, and role LOADER lacks {lacks} on it" in told


def test_a_table_of_rejects_that_cannot_be_made_is_told_before_a_run(world: AtSnowflake) -> None:
    world.set_up({"models.b": None})
    world.does("run")
    world.server.takes("CREATE TABLE", "SCHEMA")
    assert world.does("check")
    world.set_up(REJECTS)
    checked = world.call("check")
    assert checked.code == 7
    assert f'lacks CREATE TABLE ON SCHEMA "{world.account_database}"."PUBLIC"' in checked.out


def test_a_table_of_rejects_of_other_types_is_told_before_a_run(world: AtSnowflake) -> None:
    world.target("CREATE TABLE A__REJECTS (LINE VARCHAR)")
    world.set_up(REJECTS)
    checked = world.call("check")
    assert checked.code == 7
    assert re.search(
        r"a__rejects\.line is VARCHAR\S* in the warehouse and NUMBER\(19,0\) in a table of rejects", checked.out
    )
    assert "rename it, and the next load makes another" in checked.out


def test_a_column_that_only_the_owner_can_add_is_told_before_a_run(world: AtSnowflake) -> None:
    world.does("run")
    world.server.takes("OWNERSHIP", "TABLE", f"{world.account_database}.PUBLIC.A")
    assert world.does("check")
    world.set_up({"models.a.flag_when": {"n": ["-1"]}})
    world.waits(2)
    checked = world.call("check")
    assert checked.code == 7
    for told in (checked.out, world.refused(7, "run")):
        assert "table a belongs to role SOMEBODY_ELSE, and role LOADER lacks OWNERSHIP on it" in told
        assert f'GRANT OWNERSHIP ON TABLE "{world.account_database}"."PUBLIC"."A" TO ROLE "LOADER"' in told
    planned = world.call("plan", "--output", "json")
    assert planned.code == 7, planned.err
    [told] = planned.answer["ddl"]
    assert "lacks OWNERSHIP on it" in str(told)


def test_a_table_of_another_role_that_lets_rows_be_written_is_loaded_with_a_remark(world: AtSnowflake) -> None:
    world.does("run")
    for table in "AB":
        world.server.takes("OWNERSHIP", "TABLE", f"{world.account_database}.PUBLIC.{table}")
    world.waits(2)
    ended = world.call("run")
    assert ended.code == 0
    for table in "ab":
        assert f"table {table} belongs to role SOMEBODY_ELSE: no column can be added" in ended.err
    world.has(1, 2)


@pytest.mark.parametrize(
    ("kind", "what", "lacks", "also"),
    [
        ("TABLE", "ingestkit_fence_p", "UPDATE", ["OWNERSHIP"]),
        ("TABLE", "ingestkit_receipt_p", "DELETE", ["OWNERSHIP"]),
        ("STAGE", "ingestkit_stage", "WRITE", []),
    ],
)
def test_what_is_needed_of_our_own_and_belongs_to_another_role_is_named_with_what_gives_it(
    world: AtSnowflake, kind: str, what: str, lacks: str, also: list[str]
) -> None:
    world.does("run")
    named = f"{world.account_database}.PUBLIC.{what.upper()}"
    for privilege in (lacks, *also):
        world.server.takes(privilege, kind, named)
    world.waits(2)
    checked = world.call("check")
    assert checked.code == 7
    wanted = f"{kind.lower()} {what} belongs to role SOMEBODY_ELSE, and role LOADER lacks {lacks} on it"
    for told in (checked.out, world.refused(7, "run")):
        assert wanted in told
        assert f"GRANT OWNERSHIP ON {kind} " in told
    world.has(1)


def test_our_own_of_another_role_that_lets_it_be_used_is_used_without_a_word(world: AtSnowflake) -> None:
    world.does("run")
    for kind, name in (("TABLE", "INGESTKIT_FENCE_P"), ("TABLE", "INGESTKIT_RECEIPT_P"), ("STAGE", "INGESTKIT_STAGE")):
        world.server.takes("OWNERSHIP", kind, f"{world.account_database}.PUBLIC.{name}")
    world.waits(2)
    ended = world.call("run")
    assert ended.code == 0, ended.err
    assert "belongs to" not in ended.err
    world.has(1, 2)


ALL = ("OWNERSHIP", "SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
OF_A_STAGE = ("READ", "WRITE", "USAGE", "OWNERSHIP")


def hide(world: AtSnowflake, kind: str, *names: str) -> None:
    """As what another role made, which gives this one nothing."""
    for name in names:
        for privilege in ALL if kind == "TABLE" else OF_A_STAGE:
            world.server.takes(privilege, kind, f"{world.account_database}.PUBLIC.{name}")


def test_a_role_that_is_shown_nothing_of_what_was_made_is_not_told_to_make_it_again(world: AtSnowflake) -> None:
    world.does("run")
    hide(world, "TABLE", "A", "B", "INGESTKIT_FENCE_P", "INGESTKIT_RECEIPT_P")
    world.waits(2)
    checked = world.call("check")
    assert checked.code == 7
    for told in (checked.out, world.refused(7, "run")):
        assert "is gone, though batches were published into it" in told
        assert "if the connection's user and role are those that made it: ingestkit backfill p --from-lake" in told
    told = world.refused(7, "backfill", "p", "--from-lake")
    assert "has something of that name, of which this role is shown nothing" in told
    assert "look whether `role` of the connection is the one that made it" in told


@pytest.mark.parametrize(("kind", "name"), [("TABLE", "A"), ("STAGE", "INGESTKIT_STAGE")])
def test_what_a_role_is_shown_nothing_of_is_named_when_it_is_to_be_made(
    world: AtSnowflake, kind: str, name: str
) -> None:
    world.target(f"CREATE {kind} {name}" + (" (ID VARCHAR)" if kind == "TABLE" else ""))
    hide(world, kind, name)
    told = world.refused(7, "run")
    assert "has something of that name, of which this role is shown nothing" in told
    assert name in told
    assert "GRANT OWNERSHIP ON" in told


def test_a_view_that_has_the_name_of_a_target_is_said_to_be_in_the_way(world: AtSnowflake) -> None:
    world.target("CREATE TABLE T (ID VARCHAR)")
    world.target("CREATE VIEW A AS SELECT ID FROM T")
    told = world.refused(7, "run")
    assert "has something else of that name" in told
    assert "already exists as VIEW" in told
    assert "give the model another `table:`" in told


def test_a_mirror_of_runs_that_cannot_be_added_to_is_named_by_check(world: AtSnowflake) -> None:
    database = world.account_database
    made_by(world.target, DRIVE, database=database, schema="PUBLIC", role=world.server.role)
    world.settle({"connections.warehouse": {**world.connection, "mirror_runs": True}})
    assert world.does("check")
    world.server.takes("INSERT", "TABLE", f"{database}.PUBLIC.INGESTKIT_RUN_EVENT")
    checked = world.call("check")
    assert checked.code == 7
    assert f'role LOADER lacks INSERT ON TABLE "{database}"."PUBLIC"."INGESTKIT_RUN_EVENT"' in checked.out
    assert "sql/drive/snowflake.sql" in checked.out
