"""Who changes rows keeps others from the table until the end of its transaction, and how that may end otherwise."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from tests.snowflake_server import SnowflakeServer, answered, asked, error_code

pytestmark = [pytest.mark.services, pytest.mark.slow]

Connect = Callable[..., SnowflakeConnection]
TAKE = "UPDATE fence SET token = {0} WHERE token <= {0}"


@pytest.fixture
def first(connect: Connect) -> SnowflakeConnection:
    made = connect()
    asked(made, "CREATE TABLE fence (token NUMBER)")
    asked(made, "INSERT INTO fence VALUES (1)")
    return made


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


def waiting(link: SnowflakeConnection, number: int = 1) -> None:
    """Come back once so many wait for a lock."""
    until = time.monotonic() + 20
    while sum(row["status"] == "WAITING" for row in answered(link, "SHOW LOCKS")) != number:
        assert time.monotonic() < until, "nobody waits"
        time.sleep(0.02)


def test_a_second_update_waits_for_the_first_transaction_and_then_sees_what_it_committed(
    first: SnowflakeConnection, connect: Connect, aside: ThreadPoolExecutor
) -> None:
    second = connect()
    asked(first, "BEGIN")
    assert asked(first, TAKE.format(3)) == [(1, 0)]
    late = aside.submit(asked, second, TAKE.format(2))
    waiting(connect())
    assert not late.done()
    asked(first, "COMMIT")
    assert late.result(20) == [(0, 0)]
    assert asked(second, "SELECT token FROM fence") == [(3,)]


def test_a_transaction_that_waited_goes_on_where_the_first_one_rolled_back(
    first: SnowflakeConnection, connect: Connect, aside: ThreadPoolExecutor
) -> None:
    second = connect()
    asked(first, "BEGIN")
    asked(first, TAKE.format(3))
    asked(second, "BEGIN")
    late = aside.submit(asked, second, TAKE.format(2))
    waiting(connect())
    asked(first, "ROLLBACK")
    assert late.result(20) == [(1, 0)]
    asked(second, "COMMIT")
    assert asked(first, "SELECT token FROM fence") == [(2,)]


def test_inserts_wait_for_no_inserts(first: SnowflakeConnection, connect: Connect) -> None:
    second = connect()
    asked(first, "BEGIN")
    asked(first, "INSERT INTO fence VALUES (2)")
    asked(second, "BEGIN")
    asked(second, "INSERT INTO fence VALUES (3)")
    asked(first, "COMMIT")
    asked(second, "COMMIT")
    assert asked(first, "SELECT token FROM fence ORDER BY 1") == [(1,), (2,), (3,)]


def test_who_waits_longer_than_its_time_out_is_refused_and_keeps_its_transaction(
    first: SnowflakeConnection, connect: Connect
) -> None:
    second = connect(session_parameters={"LOCK_TIMEOUT": 1})
    asked(second, "CREATE TABLE other (a NUMBER)")
    asked(first, "BEGIN")
    asked(first, TAKE.format(3))
    asked(second, "BEGIN")
    asked(second, "INSERT INTO other VALUES (1)")
    with pytest.raises(ProgrammingError, match="has locked table 'FENCE' in transaction") as late:
        asked(second, TAKE.format(2))
    assert (late.value.errno, late.value.sqlstate) == (625, "57014")
    asked(second, "COMMIT")
    assert asked(first, "SELECT a FROM other") == [(1,)]


def test_the_twenty_first_who_waits_is_refused_at_once(
    first: SnowflakeConnection, connect: Connect, aside: ThreadPoolExecutor
) -> None:
    asked(first, "BEGIN")
    asked(first, TAKE.format(2))
    others: list[Future[object]] = [aside.submit(asked, connect(), TAKE.format(2)) for _ in range(20)]
    waiting(connect(), 20)
    with pytest.raises(ProgrammingError, match="exceeds the 20 statements limit"):
        asked(connect(), TAKE.format(2))
    asked(first, "COMMIT")
    assert [one.result(20) for one in others] == [[(1, 0)]] * 20


def test_a_client_that_vanished_holds_its_lock_until_patience_ends(
    server: SnowflakeServer, first: SnowflakeConnection, connect: Connect
) -> None:
    gone = connect()
    asked(gone, "BEGIN")
    asked(gone, TAKE.format(3))
    assert [row["user"] for row in answered(first, "SHOW TRANSACTIONS")] == ["LOADER"]
    server.patience(0.5)
    assert asked(first, TAKE.format(2)) == [(1, 0)]
    assert error_code(gone, "COMMIT") == 615
    assert asked(first, "SELECT token FROM fence") == [(2,)]


def test_a_transaction_is_aborted_by_its_number_and_its_owner_is_told(
    first: SnowflakeConnection, connect: Connect, aside: ThreadPoolExecutor
) -> None:
    gone = connect()
    asked(gone, "BEGIN")
    asked(gone, TAKE.format(3))
    late = aside.submit(asked, first, TAKE.format(2))
    third = connect()
    waiting(third)
    held = next(row for row in answered(third, "SHOW LOCKS") if row["status"] == "HOLDING")
    assert re.fullmatch(r"D\w+\.PUBLIC\.FENCE", held["resource"])
    asked(third, f"SELECT SYSTEM$ABORT_TRANSACTION({held['transaction']})")
    assert late.result(20) == [(1, 0)]
    assert error_code(gone, "COMMIT") == 615


def test_what_closes_its_connection_gives_up_its_locks(first: SnowflakeConnection, connect: Connect) -> None:
    gone = connect()
    asked(gone, "BEGIN")
    asked(gone, TAKE.format(3))
    gone.close()
    assert asked(first, TAKE.format(2)) == [(1, 0)]


def test_many_sessions_that_count_one_row_lose_nothing(first: SnowflakeConnection, connect: Connect) -> None:
    links = [connect() for _ in range(4)]

    def count(link: SnowflakeConnection) -> None:
        for _ in range(5):
            asked(link, "BEGIN")
            asked(link, "UPDATE fence SET token = token + 1")
            asked(link, "COMMIT")

    threads = [threading.Thread(target=count, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked(first, "SELECT token FROM fence") == [(21,)]


def test_a_client_that_waits_no_longer_for_a_lock_is_out_of_the_queue(
    first: SnowflakeConnection, connect: Connect
) -> None:
    second = connect()
    asked(first, "BEGIN")
    asked(first, TAKE.format(3))
    with second.cursor() as cursor, pytest.raises(ProgrammingError):
        cursor.execute(TAKE.format(2), timeout=1)
    waiting(connect(), 0)
    asked(first, "COMMIT")
    assert asked(second, "SELECT token FROM fence") == [(3,)]


def test_of_two_that_wait_for_each_other_the_second_is_refused_and_keeps_its_transaction(
    first: SnowflakeConnection, connect: Connect, aside: ThreadPoolExecutor
) -> None:
    second = connect()
    asked(first, "CREATE TABLE other (a NUMBER)")
    asked(first, "BEGIN")
    asked(first, TAKE.format(3))
    asked(second, "BEGIN")
    asked(second, "DELETE FROM other")
    late = aside.submit(asked, first, "DELETE FROM other")
    waiting(connect())
    with pytest.raises(ProgrammingError, match="deadlock"):
        asked(second, TAKE.format(4))
    asked(second, "ROLLBACK")
    late.result(20)
    asked(first, "COMMIT")
    assert asked(second, "SELECT token FROM fence") == [(3,)]
