"""What may befall a statement and its answer, and what the connector makes of it."""

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error, OperationalError, ProgrammingError

from tests.snowflake_server import (
    ANSWER_LATE,
    ANSWER_LOST,
    LOGIN_EXPIRED,
    NEVER_ARRIVES,
    SERVER_ERROR,
    SESSION_EXPIRED,
    TOO_MANY_WAIT,
    Fault,
    SnowflakeServer,
    asked,
    delayed,
    error_code,
    refused,
    vanished,
)

pytestmark = [pytest.mark.services, pytest.mark.slow]

INSERT = "INSERT INTO people (id) VALUES (1)"


@pytest.fixture
def hasty(connect: Callable[..., SnowflakeConnection], link: SnowflakeConnection) -> SnowflakeConnection:
    """A client that soon gives up asking again."""
    return connect(network_timeout=3)


def ids(link: SnowflakeConnection) -> list[int]:
    return [number for (number,) in asked(link, "SELECT id FROM people ORDER BY id")]


@pytest.mark.parametrize("fault", [NEVER_ARRIVES, SERVER_ERROR, SESSION_EXPIRED])
def test_what_befalls_a_statement_once_is_asked_again_by_the_connector_and_done_once(
    server: SnowflakeServer, link: SnowflakeConnection, fault: Fault
) -> None:
    broken = server.broken
    server.breaks(fault, "^INSERT")
    asked(link, INSERT)
    assert ids(link) == [1]
    assert server.broken == broken + 1


def test_an_answer_that_comes_late_is_that_of_the_first_request(
    server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    server.breaks(ANSWER_LATE, "^INSERT")
    asked(link, INSERT)
    assert ids(link) == [1]
    assert [one.outcome for one in server.sent if one.sql == INSERT][-1] == "lost"


def test_a_commit_whose_answer_is_lost_is_done_and_unknown_to_its_client(
    server: SnowflakeServer, link: SnowflakeConnection, hasty: SnowflakeConnection
) -> None:
    server.breaks(ANSWER_LOST, "^COMMIT")
    asked(hasty, "BEGIN")
    asked(hasty, INSERT)
    with pytest.raises(OperationalError):
        asked(hasty, "COMMIT")
    assert ids(link) == [1]
    assert server.sent[-2].outcome == "lost"


def test_a_commit_that_never_arrives_leaves_its_transaction_open(
    server: SnowflakeServer, link: SnowflakeConnection, hasty: SnowflakeConnection
) -> None:
    server.breaks(NEVER_ARRIVES, "^COMMIT", times=None)
    asked(hasty, "BEGIN")
    asked(hasty, INSERT)
    with pytest.raises(OperationalError):
        asked(hasty, "COMMIT")
    assert ids(link) == []
    assert len(asked(link, "SHOW TRANSACTIONS")) == 1


def test_a_server_that_answers_nothing_but_500_is_given_up_at_the_network_time_out(
    server: SnowflakeServer, hasty: SnowflakeConnection
) -> None:
    server.breaks(SERVER_ERROR, "^INSERT", times=None)
    with pytest.raises(Error):
        asked(hasty, INSERT)
    server.heals()
    assert ids(hasty) == []


def test_a_login_that_has_expired_for_ever_refuses_the_statement(
    server: SnowflakeServer, hasty: SnowflakeConnection
) -> None:
    server.breaks(LOGIN_EXPIRED, "^INSERT")
    with pytest.raises(ProgrammingError, match="expired"):
        asked(hasty, INSERT)


def test_an_error_is_told_by_its_number_and_state_for_the_nth_statement(
    server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    server.breaks(TOO_MANY_WAIT, "^INSERT", spared=1, times=2)
    asked(link, INSERT)
    assert [error_code(link, INSERT), error_code(link, INSERT)] == [625, 625]
    asked(link, INSERT)
    assert ids(link) == [1, 1]
    server.breaks(refused(630, "57014", "Statement reached its statement or warehouse timeout"), "^DELETE")
    with pytest.raises(ProgrammingError, match="timeout") as told:
        asked(link, "DELETE FROM people")
    assert told.value.sqlstate == "57014"


def test_a_statement_that_is_delayed_is_done_all_the_same(server: SnowflakeServer, link: SnowflakeConnection) -> None:
    server.breaks(delayed(0.3), "^INSERT")
    began = time.monotonic()
    asked(link, INSERT)
    assert time.monotonic() - began >= 0.3
    assert ids(link) == [1]


def test_a_login_is_cut_and_tried_again(server: SnowflakeServer, connect: Callable[..., SnowflakeConnection]) -> None:
    broken = server.broken
    server.breaks(NEVER_ARRIVES, "LOGIN")
    assert asked(connect(), "SELECT 1") == [(1,)]
    assert server.broken == broken + 1


def test_a_file_is_gone_from_its_stage_before_the_copy(
    server: SnowflakeServer, link: SnowflakeConnection, tmp_path: Path
) -> None:
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"id": [1]}), tmp_path / name)
    asked(link, f"PUT 'file://{tmp_path}/*.parquet' @stage/run AUTO_COMPRESS = FALSE")
    server.breaks(vanished("run/b.parquet"), "^COPY")
    form = "FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    assert error_code(link, f"COPY INTO people FROM @stage/run FILES = ('a.parquet', 'b.parquet') {form}") == 91_016
    asked(link, f"COPY INTO people FROM @stage/run {form}")
    assert ids(link) == [1]


def test_a_query_that_is_not_waited_for_is_found_again_by_its_id(
    server: SnowflakeServer, link: SnowflakeConnection
) -> None:
    server.breaks(delayed(0.5), "^INSERT")
    with link.cursor() as cursor:
        cursor.execute_async(INSERT)
        query = cursor.sfqid
        assert query is not None
        cursor.get_results_from_sfqid(query)
        assert cursor.fetchall() == [(1,)]
    assert asked(link, f"SELECT * FROM TABLE(RESULT_SCAN('{query}'))") == [(1,)]
    assert ids(link) == [1]


def test_an_upload_that_the_storage_refuses_once_is_done_by_the_connector_at_the_second_attempt(
    server: SnowflakeServer, link: SnowflakeConnection, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("1")
    broken = server.broken
    server.breaks(SERVER_ERROR, "UPLOAD .*a.csv")
    row = asked(link, f"PUT 'file://{tmp_path}/a.csv' @stage/run AUTO_COMPRESS = FALSE")
    assert row[0][6] == "UPLOADED"
    assert server.broken == broken + 1
