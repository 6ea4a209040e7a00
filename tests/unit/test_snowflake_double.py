"""The double of Snowflake, asked by the service's own connector: who is let in, transactions, PUT, COPY and MERGE."""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import DatabaseError, Error, ProgrammingError

from tests.snowflake_server import SnowflakeServer, key_pair, snowflake_server

pytestmark = [pytest.mark.services, pytest.mark.slow]

Rows = list[tuple[Any, ...]]
PARQUET = "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
NOTHING = [("Copy executed with 0 files processed.",)]
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def shared() -> Iterator[SnowflakeServer]:
    with snowflake_server() as started:
        yield started


@pytest.fixture
def server(shared: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnowflakeServer]:
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    yield shared
    shared.heals()


@pytest.fixture
def database(server: SnowflakeServer) -> str:
    return server.database()


@pytest.fixture
def connect(server: SnowflakeServer, database: str) -> Iterator[Callable[..., SnowflakeConnection]]:
    with contextlib.ExitStack() as opened:
        yield lambda **more: opened.enter_context(contextlib.closing(server.connect(database, **more)))


@pytest.fixture
def link(connect: Callable[..., SnowflakeConnection]) -> SnowflakeConnection:
    made = connect()
    asked(made, "CREATE TABLE people (id NUMBER(18,0) NOT NULL PRIMARY KEY, name VARCHAR(10), born DATE)")
    asked(made, "CREATE TEMPORARY STAGE stage")
    return made


def asked(link: SnowflakeConnection, sql: str, *bound: object) -> Rows:
    with link.cursor() as cursor:
        return list(cursor.execute(sql, bound or None).fetchall())  # type: ignore[union-attr]


def answered(link: SnowflakeConnection, sql: str) -> list[dict[str, Any]]:
    """The same by the names of the columns."""
    with link.cursor() as cursor:
        found = cursor.execute(sql)
        assert found is not None
        return [dict(zip([one.name for one in cursor.description], row, strict=True)) for row in found.fetchall()]


def code(link: SnowflakeConnection, sql: str) -> int | None:
    with pytest.raises(Error) as refused:
        asked(link, sql)
    return refused.value.errno


def put(link: SnowflakeConnection, file: Path, more: str = "") -> dict[str, Any]:
    (row,) = answered(link, f"PUT 'file://{file}' @stage/run/ AUTO_COMPRESS = FALSE {more}")
    return row


def parquet(folder: Path, file: str = "part.parquet", /, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns or {"id": [1, 2], "name": ["Ada", "Bo"]}), folder / file)
    return folder / file


def copy(link: SnowflakeConnection, more: str = "FILES = ('part.parquet')", options: str = PARQUET) -> Rows:
    return asked(link, f"COPY INTO people FROM @stage/run/ {more} {options}")


def test_a_key_pair_is_verified(server: SnowflakeServer, tmp_path: Path) -> None:
    """A wrong key is told apart from a user and an account that nobody knows."""
    with contextlib.closing(server.connect()) as link:
        said = asked(link, "SELECT CURRENT_USER(), CURRENT_ROLE(), CURRENT_WAREHOUSE()")
        assert said == [("LOADER", "LOADER", "LOADING")]
    key_pair(tmp_path / "other.p8")
    wrong = ({"private_key_file": str(tmp_path / "other.p8")}, {"user": "NOBODY"}, {"account": "elsewhere"})
    for more, number in zip(wrong, (394_304, 394_304, 390_144), strict=True):
        with pytest.raises(DatabaseError, match="JWT token is invalid") as refused:
            server.connect(**more)
        assert refused.value.errno == number
    assert server.logins[-1]["LOGIN_NAME"] == "LOADER"
    assert "TOKEN" not in server.logins[-1]


def test_a_key_in_a_file_with_a_password_opens_the_account_once_its_public_half_is_known(
    server: SnowflakeServer, tmp_path: Path
) -> None:
    server.knows("ROTATED", public_keys=[key_pair(tmp_path / "old.p8"), key_pair(tmp_path / "new.p8", b"secret")])
    for name, password in (("old.p8", None), ("new.p8", "secret")):
        server.connect(user="ROTATED", private_key_file=str(tmp_path / name), private_key_file_pwd=password).close()


def test_a_token_is_compared_and_may_be_expired(server: SnowflakeServer) -> None:
    server.knows("BEARER", token="of-bearer")
    said = {"user": "BEARER", "authenticator": "oauth", "private_key_file": None}
    server.connect(**said, token="of-bearer").close()
    with pytest.raises(DatabaseError, match="Invalid OAuth access token"):
        server.connect(**said, token="of-somebody")
    server.knows("BEARER", token="of-bearer", token_expired=True)
    with pytest.raises(DatabaseError, match="expired"):
        server.connect(**said, token="of-bearer")


def test_a_password_opens_the_account_only_of_whom_it_is_written_down(server: SnowflakeServer) -> None:
    server.knows("PERSON", password="secret")
    said = {"authenticator": "snowflake", "private_key_file": None, "password": "secret"}
    server.connect(user="PERSON", **said).close()
    with pytest.raises(DatabaseError, match="Incorrect username or password"):
        server.connect(**said)


def test_a_role_that_is_not_there_refuses_the_login_and_a_warehouse_that_is_not_there_the_first_query(
    server: SnowflakeServer, database: str
) -> None:
    with pytest.raises(DatabaseError, match="Role 'NONE'"):
        server.connect(database, role="NONE")
    with contextlib.closing(server.connect(database, warehouse="NONE")) as link:
        asked(link, "CREATE TABLE t (a NUMBER)")
        assert code(link, "SELECT * FROM t") == 606
        asked(link, "USE WAREHOUSE loading")
        assert asked(link, "SELECT * FROM t") == []


def test_every_statement_is_written_down_in_its_order_with_session_and_tag(
    server: SnowflakeServer, connect: Callable[..., SnowflakeConnection]
) -> None:
    before = len(server.sent)
    first = connect(session_parameters={"QUERY_TAG": "run-1", "LOCK_TIMEOUT": 600})
    second = connect()
    assert asked(first, "SHOW PARAMETERS LIKE 'LOCK_TIMEOUT'")[0][1] == "600"
    asked(second, "SELECT 2")
    asked(first, "ALTER SESSION SET QUERY_TAG = 'run-1 load' LOCK_TIMEOUT = 5")
    with pytest.raises(ProgrammingError):
        asked(first, "SELECT * FROM nowhere")
    sent = server.sent[before:]
    assert [(one.sql, one.tag, one.outcome) for one in sent] == [
        ("SHOW PARAMETERS LIKE 'LOCK_TIMEOUT'", "run-1", "done"),
        ("SELECT 2", "", "done"),
        ("ALTER SESSION SET QUERY_TAG = 'run-1 load' LOCK_TIMEOUT = 5", "run-1", "done"),
        ("SELECT * FROM nowhere", "run-1 load", "002003"),
    ]
    assert [one.session == sent[0].session for one in sent] == [True, False, True, True]


def test_a_query_is_known_afterwards_by_its_id(link: SnowflakeConnection) -> None:
    with link.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.sfqid is not None
        assert link.get_query_status(cursor.sfqid).name == "SUCCESS"


def test_two_statements_at_once_are_refused(link: SnowflakeConnection) -> None:
    assert code(link, "SELECT 1; SELECT 2") == 8


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE other (a NUMBER)",
        "CREATE TEMPORARY TABLE other (a NUMBER)",
        "CREATE STAGE other",
        "ALTER TABLE people ADD COLUMN more NUMBER",
        "DROP TABLE people",
        "BEGIN",
        "ALTER SESSION SET AUTOCOMMIT = FALSE",
    ],
)
def test_what_would_silently_commit_or_be_ignored_in_a_transaction_is_an_error(
    link: SnowflakeConnection, sql: str
) -> None:
    asked(link, "BEGIN")
    asked(link, "INSERT INTO people (id) VALUES (1)")
    assert code(link, sql) == 999_999
    asked(link, "ALTER SESSION SET QUERY_TAG = 'still'")
    asked(link, "ROLLBACK")
    assert asked(link, "SELECT * FROM people") == []


def test_a_failed_statement_leaves_its_transaction_open_and_a_commit_publishes_what_came_before(
    link: SnowflakeConnection,
) -> None:
    asked(link, "INSERT INTO people VALUES (1, 'Ada', NULL)")
    asked(link, "BEGIN")
    asked(link, "TRUNCATE TABLE people")
    with pytest.raises(ProgrammingError):
        copy(link)
    with pytest.raises(ProgrammingError):
        asked(link, "INSERT INTO people (id) SELECT 'x'")
    asked(link, "COMMIT")
    assert asked(link, "SELECT * FROM people") == []


def test_a_session_may_have_its_transactions_aborted_by_errors(link: SnowflakeConnection) -> None:
    asked(link, "ALTER SESSION SET TRANSACTION_ABORT_ON_ERROR = TRUE")
    asked(link, "BEGIN")
    asked(link, "INSERT INTO people (id) VALUES (1)")
    with pytest.raises(ProgrammingError):
        asked(link, "INSERT INTO people (id) SELECT 'x'")
    with pytest.raises(ProgrammingError):
        asked(link, "COMMIT")
    assert asked(link, "SELECT * FROM people") == []


def test_keys_are_taken_and_not_enforced(link: SnowflakeConnection) -> None:
    asked(link, "INSERT INTO people (id) VALUES (1), (1)")
    asked(link, "INSERT INTO people (id) VALUES (1)")
    asked(link, "CREATE TABLE pairs (a NUMBER UNIQUE, b NUMBER, CONSTRAINT k PRIMARY KEY (a, b))")
    asked(link, "INSERT INTO pairs VALUES (1, 1), (1, 1)")
    assert asked(link, "SELECT count(*) FROM people") == [(3,)]


def test_a_null_is_refused_where_a_column_says_so(link: SnowflakeConnection) -> None:
    assert code(link, "INSERT INTO people (name) VALUES ('Ada')") == 100_072


def test_others_see_what_is_committed_and_a_transaction_sees_it_in_its_next_statement(
    link: SnowflakeConnection, connect: Callable[..., SnowflakeConnection]
) -> None:
    other = connect()
    asked(link, "BEGIN")
    asked(link, "INSERT INTO people (id) VALUES (1)")
    assert asked(other, "SELECT id FROM people") == []
    asked(other, "INSERT INTO people (id) VALUES (2)")
    assert asked(link, "SELECT id FROM people ORDER BY id") == [(1,), (2,)]
    asked(link, "COMMIT")
    assert asked(other, "SELECT id FROM people ORDER BY id") == [(1,), (2,)]


def test_without_autocommit_a_change_waits_for_its_commit(
    link: SnowflakeConnection, connect: Callable[..., SnowflakeConnection]
) -> None:
    other = connect(autocommit=False)
    asked(other, "INSERT INTO people (id) VALUES (1)")
    assert asked(link, "SELECT id FROM people") == []
    other.commit()
    assert asked(link, "SELECT id FROM people") == [(1,)]
    asked(other, "DELETE FROM people")
    other.close()
    assert asked(link, "SELECT id FROM people") == [(1,)]


def test_a_file_that_is_there_is_skipped_unless_it_shall_be_overwritten(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    first = put(link, parquet(tmp_path))
    assert first == {
        "source": "part.parquet",
        "target": "part.parquet",
        "source_size": first["source_size"],
        "target_size": first["source_size"],
        "source_compression": "PARQUET",
        "target_compression": "PARQUET",
        "status": "UPLOADED",
        "message": "",
    }
    parquet(tmp_path, id=[7])
    assert put(link, tmp_path / "part.parquet")["status"] == "SKIPPED"
    copy(link)
    assert asked(link, "SELECT count(*) FROM people") == [(2,)]
    assert put(link, tmp_path / "part.parquet", "OVERWRITE = TRUE")["status"] == "UPLOADED"
    copy(link)
    assert asked(link, "SELECT count(*) FROM people") == [(3,)]


def test_many_files_are_put_by_one_statement_and_some_at_once(
    server: SnowflakeServer, link: SnowflakeConnection, tmp_path: Path
) -> None:
    for number in range(6):
        parquet(tmp_path, f"part-{number}.parquet", id=[number])
    before = len(server.sent)
    found = answered(link, f"PUT 'file://{tmp_path}/part-*.parquet' @stage/run/ AUTO_COMPRESS = FALSE PARALLEL = 4")
    assert [row["status"] for row in found] == ["UPLOADED"] * 6
    assert len(server.sent) == before + 1
    assert [row["name"] for row in answered(link, "LIST @stage/run/")] == [
        f"stage/run/part-{number}.parquet" for number in range(6)
    ]
    asked(link, "REMOVE @stage/run/part-0")
    assert len(asked(link, "LIST @stage")) == 5


def test_a_temporary_stage_goes_with_its_session_and_is_seen_by_no_other(
    link: SnowflakeConnection, connect: Callable[..., SnowflakeConnection], tmp_path: Path
) -> None:
    put(link, parquet(tmp_path))
    other = connect()
    assert code(other, "LIST @stage") == 2003
    link.close()
    assert code(other, "LIST @stage") == 2003


def test_the_rows_of_a_copy_say_what_became_of_each_file(link: SnowflakeConnection, tmp_path: Path) -> None:
    put(link, parquet(tmp_path))
    assert answered(link, f"COPY INTO people FROM @stage/run/ FILES = ('part.parquet') {PARQUET}") == [
        {
            "file": "stage/run/part.parquet",
            "status": "LOADED",
            "rows_parsed": 2,
            "rows_loaded": 2,
            "error_limit": 1,
            "errors_seen": 0,
            "first_error": None,
            "first_error_line": None,
            "first_error_character": None,
            "first_error_column_name": None,
        }
    ]
    assert asked(link, "SELECT id, name, born FROM people ORDER BY id") == [(1, "Ada", None), (2, "Bo", None)]


def test_a_file_that_was_loaded_is_skipped_until_the_table_is_truncated(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    put(link, parquet(tmp_path))
    copy(link)
    assert copy(link) == NOTHING
    asked(link, "DELETE FROM people")
    assert copy(link) == NOTHING
    assert asked(link, "SELECT count(*) FROM people") == [(0,)]
    assert copy(link, "FILES = ('part.parquet') FORCE = TRUE")[0][1] == "LOADED"
    asked(link, "TRUNCATE TABLE people")
    assert copy(link)[0][1] == "LOADED"
    # Another content of the name is another file.
    put(link, parquet(tmp_path, id=[9]), "OVERWRITE = TRUE")
    assert copy(link)[0][3] == 1


def test_a_rollback_takes_back_truncate_and_copy_with_what_they_remember(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    put(link, parquet(tmp_path))
    copy(link)
    asked(link, "BEGIN")
    asked(link, "TRUNCATE TABLE people")
    assert copy(link)[0][1] == "LOADED"
    asked(link, "ROLLBACK")
    assert asked(link, "SELECT count(*) FROM people") == [(2,)]
    assert copy(link) == NOTHING
    asked(link, "CREATE OR REPLACE TABLE people (id NUMBER, name VARCHAR)")
    asked(link, "BEGIN")
    copy(link)
    asked(link, "ROLLBACK")
    assert copy(link)[0][1] == "LOADED"


def test_a_copy_of_nothing_succeeds_and_a_named_file_that_is_missing_fails(
    link: SnowflakeConnection, tmp_path: Path
) -> None:
    assert copy(link, "") == NOTHING
    assert copy(link, "PATTERN = '.*none.*'") == NOTHING
    put(link, parquet(tmp_path))
    with pytest.raises(ProgrammingError) as refused:
        copy(link, "FILES = ('part.parquet', 'gone.parquet')")
    assert refused.value.errno == 91_016
    assert asked(link, "SELECT count(*) FROM people") == [(0,)]
    assert len(copy(link, "FILES = ('part.parquet', 'gone.parquet') ON_ERROR = CONTINUE")) == 1


def test_a_copy_names_a_thousand_files_at_most(link: SnowflakeConnection) -> None:
    names = ", ".join(f"'{number}'" for number in range(1001))
    with pytest.raises(ProgrammingError, match="1000"):
        copy(link, f"FILES = ({names})")


def test_a_file_loaded_before_is_told_beside_a_new_one(link: SnowflakeConnection, tmp_path: Path) -> None:
    put(link, parquet(tmp_path))
    copy(link)
    put(link, parquet(tmp_path, "more.parquet", id=[3]))
    assert [row[1:4] for row in copy(link, "FILES = ('more.parquet', 'part.parquet')")] == [
        ("LOADED", 1, 1),
        ("LOAD_SKIPPED", 0, 0),
    ]


def test_columns_are_matched_by_name_or_silently_not_at_all(link: SnowflakeConnection, tmp_path: Path) -> None:
    asked(link, 'CREATE TABLE loose (id NUMBER, name VARCHAR, "born" DATE)')
    put(link, parquet(tmp_path, ID=[1], extra=["x"]))
    into = "COPY INTO loose FROM @stage/run/ FILES = ('part.parquet') FORCE = TRUE"
    asked(link, f"{into} {PARQUET}")
    assert asked(link, "SELECT * FROM loose") == [(1, None, None)]
    asked(link, "TRUNCATE TABLE loose")
    put(link, parquet(tmp_path, other=[1]), "OVERWRITE = TRUE")
    asked(link, f"{into} {PARQUET}")
    assert asked(link, "SELECT * FROM loose") == [(None, None, None)]
    asked(link, "TRUNCATE TABLE loose")
    put(link, parquet(tmp_path, id=[1]), "OVERWRITE = TRUE")
    asked(link, f"{into} {PARQUET.replace('CASE_INSENSITIVE', 'CASE_SENSITIVE')}")
    assert asked(link, "SELECT * FROM loose") == [(None, None, None)]
    assert code(link, f"{into} FILE_FORMAT = (TYPE = PARQUET)") == 2019


@pytest.mark.parametrize("said", ["USE_LOGICAL_TYPE = TRUE", "USE_VECTORIZED_SCANNER = TRUE"])
def test_dates_and_instants_come_in_only_with_logical_types(
    link: SnowflakeConnection, tmp_path: Path, said: str
) -> None:
    asked(link, 'CREATE TABLE moments (born DATE, "AT" TIMESTAMP_TZ, local TIMESTAMP_NTZ)')
    put(link, parquet(tmp_path, born=[NOON.date(), None], at=[NOON, None], local=[NOON.replace(tzinfo=None), None]))
    into = "COPY INTO moments FROM @stage/run/ FILES = ('part.parquet')"
    plain = "FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    assert code(link, f"{into} {plain}") == 100_071
    asked(link, f"{into} {plain.replace('PARQUET', f'PARQUET {said}')}")
    found = asked(link, "SELECT * FROM moments")
    assert found == [(NOON.date(), NOON, NOON.replace(tzinfo=None)), (None, None, None)]


def test_a_text_stays_a_text_in_a_variant(link: SnowflakeConnection, tmp_path: Path) -> None:
    asked(link, "CREATE TABLE loose (v VARIANT)")
    put(link, parquet(tmp_path, v=['{"a": 1}']))
    asked(link, f"COPY INTO loose FROM @stage/run/ {PARQUET}")
    assert asked(link, "SELECT v:a FROM loose") == [(None,)]


def test_a_wrong_row_is_told_with_file_line_and_column(link: SnowflakeConnection, tmp_path: Path) -> None:
    put(link, parquet(tmp_path, id=["1", "two", "3"], name=["Ada", "Bo", "much too long a name"]))
    put(link, parquet(tmp_path, "good.parquet", id=[4]))
    with pytest.raises(ProgrammingError) as refused:
        copy(link, "FILES = ('good.parquet', 'part.parquet')")
    assert refused.value.errno == 100_038
    assert "File 'run/part.parquet', line 2" in str(refused.value)
    assert asked(link, "SELECT count(*) FROM people") == [(0,)]
    both = "FILES = ('good.parquet', 'part.parquet')"
    assert [row[1:6] for row in copy(link, f"{both} ON_ERROR = SKIP_FILE")] == [
        ("LOADED", 1, 1, 1, 0),
        ("LOAD_FAILED", 3, 0, 1, 2),
    ]
    (row,) = copy(link, "FILES = ('part.parquet') ON_ERROR = CONTINUE")
    assert row[1:6] == ("PARTIALLY_LOADED", 3, 1, 3, 2)
    assert row[7:] == (2, 1, '"PEOPLE"["ID"]')
    assert asked(link, "SELECT id FROM people ORDER BY id") == [(1,), (4,)]


def test_text_is_loaded_by_position(link: SnowflakeConnection, tmp_path: Path) -> None:
    (tmp_path / "part.csv").write_text('id,name,born\n1,"A,da",2026-03-01\n2,,\n')
    put(link, tmp_path / "part.csv")
    form = "FILE_FORMAT = (TYPE = CSV SKIP_HEADER = 1 FIELD_OPTIONALLY_ENCLOSED_BY = '\"' NULL_IF = ())"
    copy(link, "FILES = ('part.csv')", form)
    assert asked(link, "SELECT * FROM people ORDER BY id") == [(1, "A,da", NOON.date()), (2, None, None)]


MERGE = """
    MERGE INTO people t USING (SELECT * FROM VALUES {rows} s (id, name)) s ON t.id = s.id
    WHEN MATCHED THEN UPDATE SET t.name = s.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)
"""


def test_two_rows_that_change_one_row_are_an_error_and_two_new_ones_are_both_inserted(
    link: SnowflakeConnection,
) -> None:
    asked(link, "INSERT INTO people (id, name) VALUES (1, 'Ada')")
    assert code(link, MERGE.format(rows="(1, 'x'), (1, 'y')")) == 100_090
    assert answered(link, MERGE.format(rows="(1, 'x'), (2, 'y'), (2, 'z')")) == [
        {"number of rows inserted": 2, "number of rows updated": 1}
    ]
    assert asked(link, "SELECT id, name FROM people ORDER BY id, name") == [(1, "x"), (2, "y"), (2, "z")]


def test_a_right_that_is_missing_refuses_the_statement_and_is_missing_from_the_grants(
    server: SnowflakeServer, link: SnowflakeConnection, database: str
) -> None:
    server.takes("INSERT", "TABLE", f"{database}.PUBLIC.PEOPLE")
    server.takes("CREATE TABLE", "SCHEMA", f"{database}.PUBLIC")
    assert code(link, "INSERT INTO people (id) VALUES (1)") == 3001
    with pytest.raises(ProgrammingError, match="Insufficient privileges") as refused:
        asked(link, "CREATE TABLE other (a NUMBER)")
    assert refused.value.sqlstate == "42501"
    given = {(row["privilege"], row["granted_on"]) for row in answered(link, "SHOW GRANTS TO ROLE loader")}
    assert {("SELECT", "TABLE"), ("UPDATE", "TABLE"), ("CREATE STAGE", "SCHEMA")} < given
    assert not {("INSERT", "TABLE"), ("OWNERSHIP", "TABLE"), ("CREATE TABLE", "SCHEMA")} & given
    asked(link, "DELETE FROM people")


def test_tables_that_log_errors_and_streams_are_shown(server: SnowflakeServer, link: SnowflakeConnection) -> None:
    asked(link, "CREATE TABLE other_one (a NUMBER)")
    asked(link, "ALTER TABLE people SET ERROR_LOGGING = TRUE")
    found = answered(link, "SHOW TABLES LIKE 'PEO%'")
    assert [(row["name"], row["error_logging"]) for row in found] == [("PEOPLE", "ON")]
    (other,) = answered(link, "SHOW TABLES LIKE 'OTHER\\\\_ONE'")
    assert other["error_logging"] == "OFF"
    server.streams("CHANGES", "PEOPLE")
    assert [row["name"] for row in answered(link, "SHOW STREAMS")] == ["CHANGES"]
