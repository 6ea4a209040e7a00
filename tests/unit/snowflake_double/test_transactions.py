"""What is open stays open, and is committed by nobody but its owner."""

from collections.abc import Callable

import pytest
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from tests.snowflake_server import SnowflakeServer, answered, asked, error_code

pytestmark = [pytest.mark.services, pytest.mark.slow]

MERGE = """
    MERGE INTO people t USING (SELECT * FROM VALUES {rows} s (id, name)) s ON t.id = s.id
    WHEN MATCHED THEN UPDATE SET t.name = s.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)
"""


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE other (a NUMBER)",
        "CREATE TEMPORARY TABLE other (a NUMBER)",
        "CREATE STAGE other",
        "ALTER TABLE people ADD COLUMN more NUMBER",
        "DROP TABLE people",
        "DESCRIBE TABLE people",
        "DESC TABLE people",
        "SHOW TABLES",
        "BEGIN",
        "ALTER SESSION SET AUTOCOMMIT = FALSE",
    ],
)
def test_what_would_silently_commit_or_be_ignored_in_a_transaction_is_an_error(
    link: SnowflakeConnection, sql: str
) -> None:
    asked(link, "BEGIN")
    asked(link, "INSERT INTO people (id) VALUES (1)")
    assert error_code(link, sql) == 999_999
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
        asked(link, "COPY INTO people FROM @stage/run FILES = ('gone.csv')")
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
    assert error_code(link, "INSERT INTO people (name) VALUES ('Ada')") == 100_072


def test_a_number_that_is_too_great_is_refused_and_shown_without_quotes(link: SnowflakeConnection) -> None:
    asked(link, "CREATE TABLE sums (n NUMBER(6,2))")
    with pytest.raises(ProgrammingError, match=r"type FIXED\[SB4\]\(6,2\)\{nullable\}, value 12345678\.90") as told:
        asked(link, "INSERT INTO sums SELECT CAST(12345678.9 AS NUMBER(12,2))")
    assert told.value.errno == 100_046


def test_a_text_that_is_too_long_is_refused_and_leaves_the_transaction_open(link: SnowflakeConnection) -> None:
    asked(link, "BEGIN")
    asked(link, "INSERT INTO people (id, name) VALUES (1, 'Ada')")
    assert error_code(link, "INSERT INTO people (id, name) VALUES (2, 'longer than ten')") == 100_078
    assert error_code(link, "UPDATE people SET name = 'longer than ten'") == 100_078
    asked(link, "COMMIT")
    assert asked(link, "SELECT id, name FROM people") == [(1, "Ada")]


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


def state(link: SnowflakeConnection, number: object) -> object:
    [found] = answered(link, f"DESCRIBE TRANSACTION {number}")
    return found["state"]


def test_a_transaction_tells_what_became_of_it(
    link: SnowflakeConnection, connect: Callable[..., SnowflakeConnection]
) -> None:
    other, numbers = connect(), []
    for end in ("COMMIT", "ROLLBACK"):
        asked(link, "BEGIN")
        [(number,)] = asked(link, "SELECT CURRENT_TRANSACTION()")
        numbers.append(number)
        assert state(other, number) == "running"
        asked(link, end)
    assert [state(other, number) for number in numbers] == ["committed", "rolled back"]
    assert error_code(link, "DESCRIBE TRANSACTION 1") == 2003


def test_without_autocommit_a_query_begins_a_transaction_or_does_not(
    server: SnowflakeServer, connect: Callable[..., SnowflakeConnection]
) -> None:
    """The service's documentation says both."""
    other = connect(autocommit=False)
    [(number,)] = asked(other, "SELECT CURRENT_TRANSACTION()")
    assert number is not None
    assert error_code(other, "BEGIN NAME mine") == 999_999
    assert asked(other, "SELECT CURRENT_TRANSACTION()") == [(number,)]
    asked(other, "ROLLBACK")
    asked(other, "BEGIN NAME mine")
    asked(other, "ROLLBACK")
    server.begins_with_changes_alone()
    assert asked(other, "SELECT CURRENT_TRANSACTION()") == [(None,)]
    asked(other, "BEGIN NAME mine")


@pytest.mark.parametrize("autocommit", [True, False])
def test_who_is_not_told_that_others_ended_its_transaction_goes_on_without_it(
    server: SnowflakeServer, connect: Callable[..., SnowflakeConnection], link: SnowflakeConnection, autocommit: bool
) -> None:
    server.keeps_aborts_to_itself()
    server.begins_with_changes_alone()
    other = connect(autocommit=autocommit)
    asked(other, "BEGIN")
    asked(other, "INSERT INTO people (id) VALUES (1)")
    [(number,)] = asked(other, "SELECT CURRENT_TRANSACTION()")
    asked(link, f"SELECT SYSTEM$ABORT_TRANSACTION({number})")
    assert asked(other, "SELECT CURRENT_TRANSACTION()") == [(None,)]
    asked(other, "INSERT INTO people (id) VALUES (2)")
    assert asked(link, "SELECT id FROM people") == ([(2,)] if autocommit else [])
    [(implicit,)] = asked(other, "SELECT CURRENT_TRANSACTION()")
    assert implicit not in {number, *([] if autocommit else [None])}
    asked(other, "COMMIT")
    asked(other, "COMMIT")
    assert asked(link, "SELECT id FROM people") == [(2,)]
    assert state(link, number) == "rolled back"


def test_two_rows_that_change_one_row_are_an_error_and_two_new_ones_are_both_inserted(
    link: SnowflakeConnection,
) -> None:
    asked(link, "INSERT INTO people (id, name) VALUES (1, 'Ada')")
    assert error_code(link, MERGE.format(rows="(1, 'x'), (1, 'y')")) == 100_090
    assert answered(link, MERGE.format(rows="(1, 'x'), (2, 'y'), (2, 'z')")) == [
        {"number of rows inserted": 2, "number of rows updated": 1}
    ]
    assert asked(link, "SELECT id, name FROM people ORDER BY id, name") == [(1, "x"), (2, "y"), (2, "z")]


@pytest.mark.parametrize(
    ("column", "kind", "code"),
    [
        ("name", "VARCHAR(20)", None),
        ("name", "VARCHAR(5)", 2108),
        ("name", "NUMBER(10,0)", 2108),
        ("id", "NUMBER(20,0)", None),
        ("id", "NUMBER(20,2)", 2108),
        ("id", "NUMBER(10,0)", 2108),
        ("id", "VARCHAR", 2108),
        ("born", "TIMESTAMP_NTZ", 2108),
    ],
)
def test_a_column_becomes_longer_and_nothing_else(
    link: SnowflakeConnection, column: str, kind: str, code: int | None
) -> None:
    change = f"ALTER TABLE people ALTER COLUMN {column} SET DATA TYPE {kind}"
    if code is None:
        asked(link, change)
    else:
        assert error_code(link, change) == code
