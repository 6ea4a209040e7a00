"""The state in PostgreSQL: made by an upgrade only, written in turns, read as one moment, its troubles in words."""

import itertools
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from ingestkit.errors import ConfigError, StateError
from ingestkit.pipeline import SystemClock
from ingestkit.states import migrate, tables
from ingestkit.states.engine import StateDatabase
from tests.services import PostgresServer, postgres

pytestmark = pytest.mark.services

ROW = {"pipeline": "p", "state_id": "s", "token_counter": 0, "floors": {}, "pins": {}}
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def url(server: PostgresServer) -> str:
    name = f"state{next(NUMBERS)}"
    server.does(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def db(url: str) -> Iterator[StateDatabase]:
    migrate.upgrade(url)
    opened = StateDatabase.open(url, 5)
    yield opened
    opened.close()


def put(db: StateDatabase, name: str) -> None:
    with db.write() as conn:
        conn.execute(sql.insert(tables.pipeline).values(ROW | {"pipeline": name}))


def count(db: StateDatabase) -> int:
    with db.read() as conn:
        return conn.execute(sql.select(sql.func.count()).select_from(tables.pipeline)).scalar_one()


def test_only_an_upgrade_makes_its_tables(url: str) -> None:
    with pytest.raises(ConfigError, match="has no tables yet") as refused:
        StateDatabase.open(url, 5)
    assert refused.value.hint == "ingestkit state upgrade"
    assert migrate.upgrade(url) == (None, tables.HEAD)
    assert migrate.upgrade(url) == (tables.HEAD, tables.HEAD)
    StateDatabase.open(url, 5).close()


def test_the_tables_are_those_of_the_ddl(server: PostgresServer, url: str) -> None:
    migrate.upgrade(url)
    by_hand = f"state{next(NUMBERS)}"
    server.does(f"CREATE DATABASE {by_hand}")
    server.does(migrate.ddl("postgresql"), by_hand)
    assert server.schema(url.rsplit("/", 1)[1]).splitlines() == server.schema(by_hand).splitlines()
    StateDatabase.open(server.url(by_hand), 5).close()


def test_batches_are_ordered_by_their_characters(db: StateDatabase) -> None:
    for name in ("b", "B", "a_1", "a1", "Z", "ä"):
        put(db, name)
    with db.read() as conn:
        found = (
            conn.execute(sql.select(tables.pipeline.c.pipeline).order_by(tables.pipeline.c.pipeline)).scalars().all()
        )
    assert found == ["B", "Z", "a1", "a_1", "b", "ä"]


def test_a_database_of_others_is_refused(server: PostgresServer, url: str) -> None:
    server.does("CREATE TABLE theirs (id int)", url.rsplit("/", 1)[1])
    with pytest.raises(StateError, match="is a database, but not a state of ingestkit"):
        migrate.upgrade(url)


def test_a_reader_sees_one_moment_and_cannot_write(db: StateDatabase) -> None:
    with db.read() as conn:
        before = conn.execute(sql.select(sql.func.count()).select_from(tables.pipeline)).scalar_one()
        put(db, "p")
        assert conn.execute(sql.select(sql.func.count()).select_from(tables.pipeline)).scalar_one() == before
    assert count(db) == before + 1
    with pytest.raises(StateError, match="may not be written to"), db.read() as conn:
        conn.execute(sql.delete(tables.pipeline))


def test_an_error_takes_everything_back(db: StateDatabase) -> None:
    put(db, "p")

    def two() -> None:
        with db.write() as conn:
            conn.execute(sql.insert(tables.pipeline).values(ROW | {"pipeline": "q"}))
            conn.execute(sql.insert(tables.pipeline).values(ROW | {"pipeline": "p"}))

    with pytest.raises(IntegrityError):
        two()
    assert count(db) == 1


def test_writers_take_turns_from_their_start(db: StateDatabase) -> None:
    put(db, "p")
    inside, go_on = threading.Event(), threading.Event()

    def add(wait: bool) -> None:
        with db.write() as conn:
            here = tables.pipeline.c.pipeline == "p"
            counter = conn.execute(sql.select(tables.pipeline.c.token_counter).where(here)).scalar_one()
            if wait:
                inside.set()
                go_on.wait(10)
            conn.execute(sql.update(tables.pipeline).where(here).values(token_counter=counter + 1))

    first = threading.Thread(target=add, args=(True,))
    first.start()
    assert inside.wait(10)
    others = [threading.Thread(target=add, args=(False,)) for _ in range(5)]
    for one in others:
        one.start()
    go_on.set()
    for one in (first, *others):
        one.join()
    with db.read() as conn:
        assert conn.execute(sql.select(tables.pipeline.c.token_counter)).scalar_one() == 6


def test_a_writer_that_waits_too_long_says_so_and_may_try_again(db: StateDatabase, url: str) -> None:
    impatient = StateDatabase.open(url, 0.2)
    try:
        with db.write():
            with pytest.raises(StateError, match="is locked by another process") as refused, impatient.write():
                pass
            assert refused.value.transient
    finally:
        impatient.close()


def test_a_server_that_is_gone_without_a_word_is_noticed(db: StateDatabase) -> None:
    with db.read() as conn:
        driver = conn.connection.driver_connection
        assert driver is not None
        said = driver.info.get_parameters()
    assert {name: said[name] for name in said if name.startswith(("keepalives", "tcp"))} == {
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }


def test_time_is_the_servers_own(db: StateDatabase) -> None:
    class Wrong(SystemClock):
        def now(self) -> datetime:
            raise AssertionError("the clock of this machine")

    with db.read() as conn:
        assert abs((db.now(conn, Wrong()) - SystemClock().now()).total_seconds()) < 5


def test_a_restarted_server_is_connected_to_again(server: PostgresServer, db: StateDatabase) -> None:
    put(db, "p")

    def interrupted() -> None:
        with db.read() as conn:
            conn.execute(sql.select(tables.pipeline))
            server.control("-m", "immediate", "stop")
            try:
                conn.execute(sql.select(tables.pipeline))
            finally:
                server.start()

    with pytest.raises(StateError) as refused:
        interrupted()
    assert refused.value.transient
    assert count(db) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("@127.0.0.1", "@127.0.0.2"), "does not answer"),
        (("/state", "/nowhere"), "does not exist"),
        (("postgres@", "nobody@"), "refuses the login"),
    ],
)
def test_what_cannot_be_reached_says_what_to_look_at(url: str, change: tuple[str, str], told: str) -> None:
    with pytest.raises(StateError, match=told) as refused:
        StateDatabase.open(url.replace(*change), 2)
    assert refused.value.hint


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StateError) as refused:
        StateDatabase.open("postgresql://me:secret@127.0.0.1:1/state?password=secret", 2)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("password", ["left@secret", "left@secret/right", "left@secret:right"])
def test_a_password_that_would_be_taken_for_the_place_is_not_shown_as_one(password: str) -> None:
    with pytest.raises(ConfigError) as refused:
        StateDatabase.open(f"postgresql://me:{password}@127.0.0.1:1/state", 2)
    assert "secret" not in f"{refused.value.message}{refused.value.hint}"


def test_an_address_that_is_none_is_a_mistake_in_the_settings() -> None:
    for url in ("postgresql://me@host:port/state", "nonsense"):
        with pytest.raises(ConfigError, match="is not a database URL"):
            StateDatabase.open(url, 2)
