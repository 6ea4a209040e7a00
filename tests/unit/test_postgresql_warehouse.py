"""What only PostgreSQL does: readers and locks, what hangs on a table, links that are cut, a server that goes."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingestkit import steps
from ingestkit.errors import Busy, WarehouseError
from ingestkit.model import LoadMode
from ingestkit.ports import TargetColumn, Warehouse
from ingestkit.warehouses import postgresql_tables
from ingestkit.warehouses.postgresql import PostgresqlWarehouse
from tests.contracts.warehouse import (
    LINEAGE,
    PERSON,
    PIPELINE,
    WITHOUT_WINDOW,
    fence,
    load,
    publication,
    ready,
    write_valid,
)
from tests.doubles.proxy import Proxy, proxied
from tests.services import PostgresServer, postgres
from tests.warehouses import LOADER, postgresql_warehouse, warehouse_database

pytestmark = [pytest.mark.services, pytest.mark.slow]

NUMBERS = itertools.count(1)
COMMIT = b"COMMIT\0"
"""As it goes over the line; what begins a transaction says COMMITTED."""
OLD, NEW = [("1", "Basel"), ("2", "Bern")], [("3", "Ulm")]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def database(server: PostgresServer) -> str:
    return warehouse_database(server, f"warehouse{next(NUMBERS)}")


@pytest.fixture
def warehouse(server: PostgresServer, database: str, tmp_path: Path) -> PostgresqlWarehouse:
    return postgresql_warehouse(server, database, tmp_path / "scratch", lock_timeout=0.5)


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with proxied("127.0.0.1", server.port) as standing:
        yield standing


@pytest.fixture
def far(server: PostgresServer, database: str, proxy: Proxy, tmp_path: Path) -> PostgresqlWarehouse:
    """The same warehouse by way of the proxy."""
    return postgresql_warehouse(server, database, tmp_path / "scratch", port=proxy.port)


@pytest.fixture
def does(server: PostgresServer, database: str) -> Callable[[str], str]:
    """A statement of a superuser's."""
    return lambda statement: server.does(statement, database)


def put(
    warehouse: Warehouse, folder: Path, rows: list[Any], mode: LoadMode = LoadMode.REPLACE, batch: str = "b1"
) -> None:
    file = write_valid(folder / f"{next(NUMBERS)}.parquet", PERSON, rows)
    warehouse.publish(publication(load((file,), mode), batch=batch))


def rows(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return sorted(warehouse.query("SELECT id, city FROM hcp"))


@contextmanager
def reader(server: PostgresServer, database: str, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody in a transaction that sees one moment."""
    with psycopg.connect(server.url(database), application_name="a report") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for statement in statements:
            connection.execute(statement)
        yield connection
        connection.rollback()


# What merges make for themselves

INDEXES = "SELECT coalesce(string_agg(indexdef, ';'), '') FROM pg_indexes WHERE tablename = 'hcp'"
UPDATED = "SELECT pg_stat_get_tuples_updated('hcp'::regclass) > 0"
WHICH = "SELECT pg_relation_filenode('hcp')"


def merged_into(warehouse: PostgresqlWarehouse, does: Callable[[str], str], folder: Path, times: int) -> None:
    """A table of many rows, into which few were merged so often."""
    ready(warehouse, "hcp")
    put(warehouse, folder, [(str(number), "Basel") for number in range(30_000)], LoadMode.MERGE)
    for time_ in range(times):
        put(warehouse, folder, [("7", f"Bern {time_}"), (f"new {time_}", "Ulm")], LoadMode.MERGE, f"b2{time_}")
        # What a session has done is counted when it has ended.
        wait_for(lambda: does(UPDATED) == "t\n")


def wait_for(seen: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_tables, "LARGE", 1 << 20)


@pytest.mark.usefixtures("small_is_large")
def test_few_rows_are_found_by_their_key_where_they_often_come(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    merged_into(warehouse, does, tmp_path, 1)
    # Whatever is replaced soon needs none.
    assert does(INDEXES) == "\n"
    put(warehouse, tmp_path, [("8", "Bern"), ("9", None), ("x" * 20_000, "long")], LoadMode.MERGE, "b3")
    assert "USING hash (id)" in does(INDEXES)
    put(warehouse, tmp_path, [("8", "Ulm"), ("x" * 20_000, "still")], LoadMode.MERGE, "b4")
    assert does(INDEXES).count("CREATE INDEX") == 1
    found = dict(rows(warehouse))
    assert (found["7"], found["8"], found["9"], found["x" * 20_000]) == ("Bern 0", "Ulm", None, "still")
    assert len(found) == 30_002


@pytest.mark.usefixtures("small_is_large")
def test_many_rows_are_not_found_by_their_key(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    merged_into(warehouse, does, tmp_path, 1)
    put(warehouse, tmp_path, [(str(number), "Bern") for number in range(20_000)], LoadMode.MERGE, "b3")
    assert does(INDEXES) == "\n"


@pytest.mark.usefixtures("small_is_large")
def test_a_table_with_that_index_is_replaced_as_one_without(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    merged_into(warehouse, does, tmp_path, 2)
    before = does(WHICH)
    assert "USING hash" in does(INDEXES)
    put(warehouse, tmp_path, NEW, batch="b9")
    assert rows(warehouse) == NEW
    assert does(WHICH) != before
    assert does(INDEXES) == "\n"


@pytest.mark.usefixtures("small_is_large")
def test_an_index_of_somebody_elses_does_as_well(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    merged_into(warehouse, does, tmp_path, 1)
    does("CREATE INDEX theirs ON hcp (id)")
    put(warehouse, tmp_path, [("8", "Bern")], LoadMode.MERGE, "b3")
    assert does(INDEXES).count("CREATE INDEX") == 1


@pytest.mark.usefixtures("small_is_large")
def test_who_may_not_make_one_merges_without(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    merged_into(warehouse, does, tmp_path, 1)
    does(f"ALTER TABLE hcp OWNER TO CURRENT_USER; GRANT ALL ON hcp TO {LOADER}")
    put(warehouse, tmp_path, [("8", "Bern")], LoadMode.MERGE, "b3")
    assert does(INDEXES) == "\n"
    assert dict(rows(warehouse))["8"] == "Bern"


# What hangs on a table that is replaced

TRIGGER = """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER it BEFORE INSERT ON hcp FOR EACH ROW EXECUTE FUNCTION f()"""


def test_grants_and_comments_outlive_a_replace_and_nothing_is_added(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD)
    does(
        """DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'an"alyst') THEN CREATE ROLE "an""alyst"; END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stranger') THEN CREATE ROLE stranger; END IF;
        END $$"""
    )
    does(
        f"""SET ROLE {LOADER};
        GRANT SELECT ON hcp TO "an""alyst" WITH GRANT OPTION;
        GRANT UPDATE (city) ON hcp TO "an""alyst";
        GRANT SELECT ON hcp TO PUBLIC;
        COMMENT ON TABLE hcp IS 'who prescribes; it''s';
        COMMENT ON COLUMN hcp.city IS 'where';
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO stranger"""
    )
    shown = """SELECT relacl::text, relowner::regrole, obj_description(pg_class.oid), col_description(pg_class.oid, 2),
        (SELECT attacl FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'city')
        FROM pg_class WHERE relname = 'hcp'"""
    before, number = does(shown), does("SELECT 'hcp'::regclass::oid")
    assert "where" in before
    put(warehouse, tmp_path, NEW, batch="b2")
    assert does("SELECT 'hcp'::regclass::oid") != number
    assert sorted(does(shown)) == sorted(before)
    assert "stranger" not in does(shown)
    assert rows(warehouse) == NEW


@pytest.mark.parametrize(
    "made",
    [
        "CREATE VIEW it AS SELECT * FROM hcp",
        "CREATE INDEX it ON hcp (id)",
        "ALTER TABLE hcp ADD CONSTRAINT it PRIMARY KEY (id); CREATE TABLE other (id text REFERENCES hcp DEFERRABLE)",
        "ALTER TABLE hcp ADD COLUMN it text DEFAULT 'x'",
        "CREATE RULE it AS ON INSERT TO hcp WHERE false DO ALSO NOTHING",
        "CREATE POLICY it ON hcp USING (true)",
        TRIGGER,
        "CREATE FUNCTION it(hcp) RETURNS text LANGUAGE sql AS 'SELECT $1.city'",
        "CREATE STATISTICS it ON id, city FROM hcp",
        "CREATE PUBLICATION it FOR TABLE hcp WITH (publish = 'insert')",
        "CREATE TABLE it () INHERITS (hcp)",
        "ALTER TABLE hcp SET (fillfactor = 70)",
        "ALTER TABLE hcp REPLICA IDENTITY FULL",
        "ALTER TABLE hcp SET UNLOGGED",
    ],
    ids=lambda made: " ".join(made.split()[:4]),
)
def test_a_table_that_something_hangs_on_stays_itself(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path, made: str
) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD)
    does(made)
    number = does("SELECT 'hcp'::regclass::oid")
    put(warehouse, tmp_path, NEW, batch="b2")
    assert does("SELECT 'hcp'::regclass::oid") == number
    assert rows(warehouse) == NEW
    assert warehouse.receipts(PIPELINE)[-1].counts.deleted == 2


def test_two_tables_are_replaced_at_once_and_leave_nothing_beside(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    ready(warehouse, "hco", "hcp")
    file = write_valid(tmp_path / "a.parquet", PERSON, OLD)
    warehouse.publish(publication(load((file,)), load((file,), model="hco")))
    assert rows(warehouse) == sorted(warehouse.query("SELECT id, city FROM hco")) == OLD
    assert does(
        "SELECT relname FROM pg_class WHERE relname LIKE 'ingestkit%' AND relkind = 'r' ORDER BY 1"
    ).split() == [
        "ingestkit_fence",
        "ingestkit_receipt",
    ]


# Readers and locks


@pytest.mark.parametrize("mode", WITHOUT_WINDOW)
def test_a_reader_of_an_older_moment_never_sees_an_empty_table(
    warehouse: PostgresqlWarehouse, server: PostgresServer, database: str, tmp_path: Path, mode: LoadMode
) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD)
    with reader(server, database, "SELECT 1") as older:
        put(warehouse, tmp_path, NEW, mode, batch="b2")
        seen = older.execute("SELECT count(*) FROM hcp").fetchone()
    assert seen == ((1,) if mode is LoadMode.REPLACE else (2,))


def test_an_open_reader_of_a_table_to_be_replaced_is_named_after_a_while(
    warehouse: PostgresqlWarehouse, server: PostgresServer, database: str, tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD)
    with reader(server, database, "SELECT * FROM hcp") as open_reader:
        with pytest.raises(
            Busy, match=r"still locked after 0\.5 s: hcp by process \d+ \(a report, user postgres"
        ) as told:
            put(warehouse, tmp_path, NEW, batch="b2")
        assert str(open_reader.info.backend_pid) in told.value.message
        assert told.value.hint
        assert rows(warehouse) == OLD
    put(warehouse, tmp_path, NEW, batch="b2")
    assert rows(warehouse) == NEW


def test_a_key_that_the_target_has_twice_is_merged_in_both_places_and_not_added(
    warehouse: PostgresqlWarehouse, tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    for batch in ("b1", "b2"):
        put(warehouse, tmp_path, OLD, LoadMode.APPEND, batch=batch)
    put(warehouse, tmp_path, [("1", "Bonn"), ("3", "Ulm")], LoadMode.MERGE, batch="b3")
    assert rows(warehouse) == [("1", "Bonn"), ("1", "Bonn"), ("2", "Bern"), ("2", "Bern"), ("3", "Ulm")]


def test_a_row_that_a_trigger_keeps_as_it_was_is_not_added_beside_it(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD, LoadMode.MERGE)
    does("CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    does("CREATE TRIGGER it BEFORE UPDATE ON hcp FOR EACH ROW EXECUTE FUNCTION kept()")
    put(warehouse, tmp_path, [("1", "Bonn"), *NEW], LoadMode.MERGE, batch="b2")
    assert rows(warehouse) == [*OLD, *NEW]


@pytest.mark.parametrize("mode", [LoadMode.MERGE, LoadMode.APPEND])
def test_what_others_add_or_take_within_the_publish_is_counted(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path, mode: LoadMode
) -> None:
    """By the server's own figures of what was written, since nobody else writes the table meanwhile."""
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD, LoadMode.MERGE)
    does(
        """CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF pg_trigger_depth() = 1 THEN INSERT INTO hcp (id, city) VALUES (NEW.id || ' too', NEW.city); END IF;
            DELETE FROM hcp WHERE id = '1'; RETURN NULL; END $$;
        CREATE TRIGGER it AFTER INSERT ON hcp FOR EACH ROW EXECUTE FUNCTION more()"""
    )
    put(warehouse, tmp_path, NEW, mode, batch="b2")
    [receipt] = [one for one in warehouse.receipts(PIPELINE) if one.batch == "b2"]
    assert receipt.counts.target == len(rows(warehouse)) == len(OLD) - 1 + 2 * len(NEW)


def test_rows_are_added_beside_an_open_reader(
    warehouse: PostgresqlWarehouse, server: PostgresServer, database: str, tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD, LoadMode.APPEND)
    with reader(server, database, "SELECT * FROM hcp"):
        put(warehouse, tmp_path, NEW, LoadMode.APPEND, batch="b2")
        put(warehouse, tmp_path, [("3", "Bonn")], LoadMode.MERGE, batch="b3")
    assert rows(warehouse) == [*OLD, ("3", "Bonn")]


def test_nobody_else_writes_into_a_table_while_it_is_published(
    warehouse: PostgresqlWarehouse,
    server: PostgresServer,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready(warehouse, "hcp")
    refused = []

    def look(reached: str) -> None:
        if reached == "load.rows_written":
            with psycopg.connect(server.url(database)) as other:
                other.execute("SET lock_timeout = '50ms'")
                try:
                    other.execute("INSERT INTO hcp VALUES ('9')")
                except psycopg.errors.LockNotAvailable as error:
                    refused.append(error)

    monkeypatch.setattr(steps, "reached", look)
    put(warehouse, tmp_path, OLD, LoadMode.APPEND)
    assert len(refused) == 1
    assert rows(warehouse) == OLD


def test_a_fence_that_is_held_too_long_names_its_holder(
    warehouse: PostgresqlWarehouse, server: PostgresServer, database: str, tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    with (
        reader(server, database, "UPDATE ingestkit_fence SET token = token"),
        pytest.raises(Busy, match=r"ingestkit_fence by process \d+ \(a report"),
    ):
        put(warehouse, tmp_path, OLD)


def test_a_column_is_not_widened_under_an_open_reader(
    warehouse: PostgresqlWarehouse, server: PostgresServer, database: str
) -> None:
    ready(warehouse, "hcp")
    more = (*PERSON, TargetColumn("age", "integer"))
    with reader(server, database, "SELECT * FROM hcp"), pytest.raises(Busy, match="hcp by process"):
        warehouse.evolve("hcp", more, LINEAGE)
    assert len(warehouse.evolve("hcp", more, LINEAGE)) == 1


# What others have set


def test_nothing_depends_on_what_a_role_has_set(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], database: str, tmp_path: Path
) -> None:
    does("CREATE SCHEMA trap; CREATE TABLE trap.hcp (id text); GRANT ALL ON SCHEMA trap TO PUBLIC")
    does("CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT $2'")
    for setting in (
        "search_path = trap, pg_temp, public, pg_catalog",
        "DateStyle = 'German, DMY'",
        "TimeZone = 'Asia/Kathmandu'",
        "standard_conforming_strings = off",
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
        "statement_timeout = '200ms'",
        "extra_float_digits = 0",
        "client_encoding = 'LATIN1'",
        "synchronous_commit = off",
    ):
        does(f"ALTER ROLE {LOADER} IN DATABASE {database} SET {setting}")
    ready(warehouse, "hcp")
    does("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'")
    does("CREATE TRIGGER it BEFORE INSERT ON hcp FOR EACH STATEMENT EXECUTE FUNCTION slow()")
    put(warehouse, tmp_path, [("é\\'", "表")])
    put(warehouse, tmp_path, [("2", "x")], LoadMode.MERGE, batch="b2")
    assert rows(warehouse) == [("2", "x"), ("é\\'", "表")]
    assert does("SELECT count(*) FROM trap.hcp").strip() == "0"


def test_types_that_people_have_made_are_widened_or_kept(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str]
) -> None:
    warehouse.check()
    does(f"SET ROLE {LOADER}; CREATE TABLE hcp (s varchar(10), i integer, r real, d smallint, j jsonb)")
    columns = [("s", "string"), ("i", "integer"), ("r", "float"), ("d", "decimal(7,2)"), ("j", "json")]
    wanted = tuple(TargetColumn(name, kind) for name, kind in columns)
    assert [one.rsplit("TYPE ")[1] for one in warehouse.evolve("hcp", wanted, ())] == [
        "text",
        "bigint",
        "double precision",
        "numeric(7,2)",
    ]
    assert warehouse.evolve("hcp", wanted, ()) == ()


def test_a_view_on_a_column_to_be_widened_is_named(warehouse: PostgresqlWarehouse, does: Callable[[str], str]) -> None:
    warehouse.check()
    does(f"SET ROLE {LOADER}; CREATE TABLE hcp (n integer); CREATE VIEW people AS SELECT n FROM hcp")
    with pytest.raises(WarehouseError, match="people") as refused:
        warehouse.evolve("hcp", (TargetColumn("n", "integer"),), ())
    assert refused.value.hint


@pytest.mark.parametrize(
    "made", ["CREATE VIEW hcp AS SELECT 1 AS id", "CREATE MATERIALIZED VIEW hcp AS SELECT 1 AS id"]
)
def test_what_is_no_table_is_not_published_into(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], made: str
) -> None:
    warehouse.check()
    does(made)
    with pytest.raises(WarehouseError, match="is no table"):
        warehouse.planned("hcp", PERSON, LINEAGE)
    assert warehouse.missing(("hcp",)) == {"hcp"}


def test_a_name_that_would_be_cut_short_is_refused(warehouse: PostgresqlWarehouse) -> None:
    warehouse.check()
    warehouse.evolve("t" * 63, (TargetColumn("c" * 63, "string"),), LINEAGE)
    assert warehouse.missing(("t" * 63,)) == frozenset()
    for table, column in (("t" * 64, "c"), ("t", "é" * 32)):
        with pytest.raises(WarehouseError, match="63 bytes"):
            warehouse.evolve(table, (TargetColumn(column, "string"),), LINEAGE)


@pytest.mark.parametrize(
    "asked",
    [
        "DELETE FROM hcp",
        "SELECT 1; DELETE FROM hcp",
        "SELECT 1; COMMIT; DELETE FROM hcp",
        "WITH gone AS (DELETE FROM hcp RETURNING 1) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "VACUUM hcp",
    ],
)
def test_a_query_cannot_write(warehouse: PostgresqlWarehouse, tmp_path: Path, asked: str) -> None:
    ready(warehouse, "hcp")
    put(warehouse, tmp_path, OLD)
    with pytest.raises(WarehouseError):
        warehouse.query(asked)
    assert rows(warehouse) == OLD
    assert warehouse.query("SELECT '100%' AS said, count(*) FROM hcp WHERE city LIKE 'B%';") == [("100%", 2)]


# What goes wrong


def test_a_row_that_does_not_fit_is_told_without_its_values(
    warehouse: PostgresqlWarehouse, does: Callable[[str], str], tmp_path: Path
) -> None:
    ready(warehouse, "hcp")
    does("ALTER TABLE hcp ADD CONSTRAINT known CHECK (city <> 'secret')")
    many = [(str(number), "secret" if number == 3 else "x" * 500) for number in range(40_000)]
    with pytest.raises(WarehouseError, match=r"of hcp, by known \(CheckViolation\)") as refused:
        put(warehouse, tmp_path, many)
    assert "secret" not in refused.value.message
    assert refused.value.__cause__ is None
    assert rows(warehouse) == []


def test_a_role_without_rights_is_told_what_to_grant(
    server: PostgresServer, database: str, warehouse: PostgresqlWarehouse, does: Callable[[str], str]
) -> None:
    does("REVOKE CREATE ON SCHEMA public FROM ingestkit_warehouse")
    with pytest.raises(WarehouseError, match="may not use schema public"):
        warehouse.planned("hcp", PERSON, LINEAGE)
    with pytest.raises(WarehouseError, match="may not use schema public") as refused:
        warehouse.check()
    assert "sql/grants/warehouse_postgresql.sql" in str(refused.value.hint)
    does("GRANT CREATE ON SCHEMA public TO ingestkit_warehouse")
    does(f"REVOKE TEMPORARY ON DATABASE {database} FROM ingestkit_warehouse")
    with pytest.raises(WarehouseError, match="temporary tables"):
        warehouse.check()
    elsewhere = replace(warehouse, server=replace(warehouse.server, schema="nowhere"))
    does(f"GRANT TEMPORARY ON DATABASE {database} TO ingestkit_warehouse")
    with pytest.raises(WarehouseError, match="may not use schema nowhere, make it") as refused:
        elsewhere.check()
    assert "sql/grants/warehouse_postgresql.sql" in str(refused.value.hint)


def test_a_database_that_cannot_hold_every_character_is_refused(server: PostgresServer, tmp_path: Path) -> None:
    server.does("CREATE DATABASE plain ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    with pytest.raises(WarehouseError, match="SQL_ASCII"):
        postgresql_warehouse(server, "plain", tmp_path).check()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"port": 1}, "does not answer"),
        ({"dbname": "nowhere"}, "does not exist"),
        ({"user": "nobody", "password": "hunter2"}, "refuses the login"),
        ({"sslmode": "require"}, "is not to be spoken to as sslmode demands"),
    ],
)
def test_what_cannot_be_reached_says_what_to_look_at(
    warehouse: PostgresqlWarehouse, change: dict[str, Any], told: str
) -> None:
    parameters = {**warehouse.server.parameters, **change}
    elsewhere = replace(warehouse, server=replace(warehouse.server, parameters=parameters))
    with pytest.raises(WarehouseError, match=told) as refused:
        elsewhere.fences(PIPELINE)
    assert refused.value.hint
    assert refused.value.transient == ("port" in change)
    assert "hunter2" not in refused.value.message + repr(elsewhere)


def test_several_that_check_at_once_make_the_tables_once(warehouse: PostgresqlWarehouse) -> None:
    failures: list[WarehouseError] = []
    together = threading.Barrier(4, timeout=30)

    def check() -> None:
        together.wait()
        try:
            warehouse.check()
        except WarehouseError as error:
            failures.append(error)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert warehouse.fences(PIPELINE) == {}


@pytest.mark.parametrize("mode", WITHOUT_WINDOW)
def test_a_commit_that_never_reached_the_server_is_made_again(
    far: PostgresqlWarehouse, proxy: Proxy, tmp_path: Path, mode: LoadMode
) -> None:
    ready(far, "hcp")
    proxy.faults.cut_before = COMMIT
    with pytest.raises(WarehouseError, match="may have been made or not") as lost:
        put(far, tmp_path, OLD, mode)
    assert lost.value.transient
    proxy.faults.cut_before = None
    assert far.receipts(PIPELINE) == ()
    put(far, tmp_path, OLD, mode)
    assert rows(far) == OLD


@pytest.mark.parametrize("mode", WITHOUT_WINDOW)
def test_a_commit_whose_answer_was_lost_is_found_by_its_receipt(
    far: PostgresqlWarehouse, proxy: Proxy, tmp_path: Path, mode: LoadMode
) -> None:
    ready(far, "hcp")
    proxy.faults.cut_after = COMMIT
    with pytest.raises(WarehouseError, match="may have been made or not") as lost:
        put(far, tmp_path, OLD, mode)
    assert lost.value.transient
    proxy.faults.cut_after = None
    [receipt] = far.receipts(PIPELINE)
    file = write_valid(tmp_path / "again.parquet", PERSON, OLD)
    assert far.publish(publication(load((file,), mode), token=2)) == {"hcp": receipt}
    assert rows(far) == OLD


@pytest.mark.parametrize("seed", range(5))
def test_a_link_cut_while_rows_go_over_it_leaves_nothing(
    far: PostgresqlWarehouse, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    # Half of them before the rows, which begin behind some hundred bytes of greeting and questions.
    lot = random.Random(seed)
    at = lot.randrange(100, 4_000) if seed % 2 else lot.randrange(4_000, 2_000_000)
    print(f"seed {seed}: cut behind {at} bytes")
    ready(far, "hcp")
    many = [(str(number), random.Random(number).randbytes(50).hex()) for number in range(20_000)]
    proxy.faults.cut_up = at
    with pytest.raises(WarehouseError) as lost:
        put(far, tmp_path, many)
    assert lost.value.transient
    proxy.faults.cut_up = None
    assert rows(far) == []
    put(far, tmp_path, many)
    assert len(rows(far)) == 20_000


def test_what_a_process_that_is_gone_was_doing_ends_and_its_locks_with_it(
    far: PostgresqlWarehouse, proxy: Proxy, does: Callable[[str], str], database: str, tmp_path: Path
) -> None:
    ready(far, "hcp")
    does("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(50); RETURN NEW; END'")
    does("CREATE TRIGGER it BEFORE INSERT ON hcp FOR EACH STATEMENT EXECUTE FUNCTION f()")
    ended: list[WarehouseError] = []

    def publish() -> None:
        try:
            put(far, tmp_path, OLD, LoadMode.MERGE)
        except WarehouseError as error:
            ended.append(error)

    asked = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'"
    publishing = threading.Thread(target=publish)
    publishing.start()
    while does(asked).strip() == "0":
        assert publishing.is_alive()
    began = time.monotonic()
    proxy.cut()
    while does(asked).strip() != "0":
        assert time.monotonic() < began + 20
    publishing.join(20)
    assert [one.transient for one in ended] == [True]
    does("DROP TRIGGER it ON hcp")
    put(far, tmp_path, OLD, LoadMode.MERGE)
    assert rows(far) == OLD


def test_a_slow_link_is_only_slow(far: PostgresqlWarehouse, proxy: Proxy, tmp_path: Path) -> None:
    proxy.faults.delay = 0.002
    proxy.faults.rate = 50_000_000
    ready(far, "hcp")
    put(far, tmp_path, OLD)
    assert rows(far) == OLD


@pytest.mark.parametrize("step", ["load.fenced", "load.rows_written", "load.before_commit"])
@pytest.mark.parametrize("how", ["immediate", "fast"])
def test_a_server_restarted_in_a_load_is_told_and_the_load_made_again(
    warehouse: PostgresqlWarehouse,
    server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    how: str,
) -> None:
    ready(warehouse, "hcp")

    def restart(reached: str) -> None:
        if reached == step:
            server.control("-m", how, "stop")
            server.start()

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", restart)
        with pytest.raises(WarehouseError) as lost:
            put(warehouse, tmp_path, OLD)
    assert lost.value.transient, lost.value.message
    assert rows(warehouse) == []
    put(warehouse, tmp_path, OLD)
    assert rows(warehouse) == OLD


def test_a_load_without_its_rows_ends_and_leaves_nothing(warehouse: PostgresqlWarehouse, tmp_path: Path) -> None:
    ready(warehouse, "hcp")
    warehouse.fence((fence("hco"),))
    file = write_valid(tmp_path / "torn.parquet", PERSON, [(str(number), "x" * 90) for number in range(200_000)])
    content = bytearray(file.path.read_bytes())
    content[20_000:60_000] = bytes(40_000)
    file.path.write_bytes(content)
    with pytest.raises(WarehouseError, match="valid rows cannot be read"):
        warehouse.publish(publication(replace(load((file,)), key=())))
    assert rows(warehouse) == []
