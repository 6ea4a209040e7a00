"""Runs into Snowflake when lines are cut, answers lost, sessions ended, files gone and tables locked."""

import itertools
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from ingestkit import steps
from tests.integration.at_snowflake import AtSnowflake, account, loaded_once
from tests.snowflake_server import (
    ANSWER_LATE,
    ANSWER_LOST,
    ENDED_MEANWHILE,
    LINE_CUT,
    LOGIN_EXPIRED,
    NAMES_TAKEN,
    NEVER_ARRIVES,
    SESSION_EXPIRED,
    TOO_MANY_WAIT,
    Fault,
    asked,
    delayed,
    refused,
    short_of,
    status,
    vanished,
)

pytestmark = [pytest.mark.services, pytest.mark.slow]

server, world = account, loaded_once

ONCE = {"retry.attempts": 1}
# What a publish sends, in its order.
INTO_A_TABLE = r'^COPY INTO "D\w+"'
BESIDE = "^COPY INTO .*INGESTKIT_STAGE_B"
MERGED = r'^MERGE INTO "D\w+"\."PUBLIC"\."B"'
STATEMENTS = [
    "^REMOVE",
    "^PUT .*/a/",
    "^CREATE .*TEMPORARY",
    BESIDE,
    "^BEGIN",
    "^UPDATE",
    "^ALTER SESSION",
    "^SELECT .*JOIN .*INGESTKIT_RECEIPT_P",
    "^TRUNCATE",
    INTO_A_TABLE,
    MERGED,
    "^MERGE INTO .*INGESTKIT_RECEIPT_P",
]


def refused_and_then_done(world: AtSnowflake) -> str:
    """What a run says that fails; nothing of its work is seen, and the next one does it."""
    told = world.refused(7, "run")
    world.server.heals()
    world.has(1)
    world.does("run")
    world.has(1, 2)
    return told


def each_time_in_one_run(world: AtSnowflake, *faults: tuple[Fault, str]) -> None:
    """Batch after batch, each with a fault of its own."""
    for number, (fault, statement) in enumerate(faults, start=2):
        world.waits(number)
        broken = world.server.broken
        world.server.breaks(fault, statement)
        world.does("run")
        assert world.server.broken > broken, statement
        world.has(*range(1, number + 1))


# --- a COMMIT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logout", [None, NEVER_ARRIVES])
def test_a_commit_that_never_arrives_is_made_up_for_in_the_same_run(world: AtSnowflake, logout: Fault | None) -> None:
    """Where the session cannot even be ended, its transaction stays open until the next try ends it."""
    world.server.breaks(LINE_CUT, "^COMMIT")
    if logout is not None:
        world.server.breaks(logout, "LOGOUT", times=None)
    world.does("run")
    world.has(1, 2)
    ended = [one.outcome for one in world.sent if "SYSTEM$ABORT_TRANSACTION" in one.sql]
    assert ended == (["done"] if logout is not None else [])


@pytest.mark.parametrize("fault", [ANSWER_LATE, ANSWER_LOST, ENDED_MEANWHILE])
def test_a_commit_whose_answer_is_lost_is_known_by_its_transaction(world: AtSnowflake, fault: Fault) -> None:
    world.set_up(ONCE)
    world.server.breaks(fault, "^COMMIT")
    world.does("run")
    world.has(1, 2)


@pytest.mark.parametrize("fault", [ANSWER_LOST, ENDED_MEANWHILE])
def test_a_commit_that_nothing_tells_of_is_known_by_its_receipt(world: AtSnowflake, fault: Fault) -> None:
    world.server.breaks(fault, "^COMMIT")
    world.server.breaks(refused(3001, "42501", "Insufficient privileges"), "^DESCRIBE TRANSACTION", times=None)
    world.does("run")
    world.has(1, 2)
    # The second try found the receipts and wrote nothing.
    assert sum(one.sql.startswith("TRUNCATE") for one in world.sent) == 2


def test_a_commit_of_unknown_outcome_is_told_and_settled_by_the_next_run(world: AtSnowflake) -> None:
    world.set_up(ONCE)
    world.server.breaks(LINE_CUT, "^COMMIT")
    told = world.refused(7, "run")
    assert "while a COMMIT was under way" in told
    assert "hint: run again: the receipt tells whether it was" in told
    world.does("run")
    world.has(1, 2)


def test_a_commit_that_is_still_under_way_is_left_to_the_next_try(world: AtSnowflake) -> None:
    """Which waits for the fence that it holds, and ends it: it comes to nothing when its turn comes."""
    world.server.breaks(delayed(25), "^COMMIT")
    world.server.breaks(NEVER_ARRIVES, "RESULT COMMIT", times=None)
    world.server.breaks(NEVER_ARRIVES, "LOGOUT", times=None)
    before = len(world.server.sent)
    ended = world.call("run")
    assert ended.code == 0, ended.err
    assert "while a COMMIT was under way" in ended.err
    asked_for = [one.outcome for one in world.server.sent[before:] if one.sql.startswith("DESCRIBE TRANSACTION")]
    assert asked_for[0] == "done"
    assert [one.outcome for one in world.sent if "SYSTEM$ABORT_TRANSACTION" in one.sql] == ["done"]
    world.has(1, 2)


# --- any statement ----------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_a_line_lost_in_any_statement_costs_a_second_try(world: AtSnowflake) -> None:
    """The session it was in stays behind, with all it holds."""
    world.server.breaks(NEVER_ARRIVES, "LOGOUT", times=None)
    each_time_in_one_run(world, *((LINE_CUT, statement) for statement in STATEMENTS))


def test_a_statement_that_is_done_and_whose_answer_is_lost_costs_a_second_try(world: AtSnowflake) -> None:
    world.server.breaks(NEVER_ARRIVES, "LOGOUT", times=None)
    each_time_in_one_run(world, *((ANSWER_LOST, one) for one in ("^UPDATE", "^TRUNCATE", INTO_A_TABLE, MERGED)))


@pytest.mark.parametrize("statement", ["^PUT", INTO_A_TABLE, MERGED])
def test_a_line_that_stays_lost_is_told_and_leaves_nothing(world: AtSnowflake, statement: str) -> None:
    world.set_up(ONCE)
    world.server.breaks(LINE_CUT, statement, times=None)
    told = refused_and_then_done(world)
    assert "does not answer" in told
    assert "hint: " in told


@pytest.mark.matrix
def test_a_service_that_is_overloaded_for_a_moment_or_wants_its_session_renewed_is_asked_again(
    world: AtSnowflake,
) -> None:
    every = itertools.cycle((status(500), status(503), SESSION_EXPIRED, status(429)))
    logins = [(status(code), "LOGIN") for code in (500, 503, 429)]
    each_time_in_one_run(world, *logins, *((next(every), one) for one in [*STATEMENTS, "^COMMIT"]))


@pytest.mark.parametrize("statement", ["LOGIN", INTO_A_TABLE])
def test_a_service_that_stays_overloaded_is_told(world: AtSnowflake, statement: str) -> None:
    world.set_up(ONCE)
    world.server.breaks(status(503), statement, times=None)
    assert "does not answer" in refused_and_then_done(world)


@pytest.mark.parametrize("statement", ["^PUT", INTO_A_TABLE, "^COMMIT"])
def test_a_login_that_has_expired_is_made_again(world: AtSnowflake, statement: str) -> None:
    """What cannot be renewed: it lasts four hours, and a run may last longer."""
    each_time_in_one_run(world, (LOGIN_EXPIRED, statement))


# --- stages and what they hold ----------------------------------------------------------------------------------------


def test_a_file_that_vanishes_from_the_stage_is_put_there_again(world: AtSnowflake) -> None:
    each_time_in_one_run(world, (vanished("part-0.parquet"), INTO_A_TABLE), (vanished("part-0.parquet"), BESIDE))


def test_files_that_vanish_again_and_again_are_told(world: AtSnowflake) -> None:
    world.server.breaks(vanished("part-0.parquet"), INTO_A_TABLE, times=None)
    told = refused_and_then_done(world)
    assert "misses a file that was put into its stage" in told
    assert "part-0.parquet" in told


def test_a_put_that_skips_a_file_loads_nothing(world: AtSnowflake) -> None:
    before = len(world.sent)
    world.server.breaks(NAMES_TAKEN, "^PUT", times=None)
    told = refused_and_then_done(world)
    assert "1 of 1 files did not come into the stage, part-0.parquet among them (SKIPPED)" in told
    skipped = list(itertools.takewhile(lambda one: one.sql != "COMMIT", world.sent[before:]))
    assert sum(one.sql.startswith("COPY") for one in skipped) == 2


@pytest.mark.parametrize(("rows", "said"), [(0, "it did not load"), (1, "1 came")])
@pytest.mark.parametrize("statement", [INTO_A_TABLE, BESIDE])
def test_a_copy_that_falls_short_is_rolled_back(world: AtSnowflake, statement: str, rows: int, said: str) -> None:
    world.server.breaks(short_of(rows), statement, times=None)
    assert f"of part-0.parquet with 2 rows {said}; nothing was published" in refused_and_then_done(world)


# --- logins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (394_304, "knows another key of this user", "SET RSA_PUBLIC_KEY"),
        (394_303, "says that this machine's clock is wrong", "set the clock"),
        (390_144, "does not take this key", "SET RSA_PUBLIC_KEY"),
        (390_318, "says that the token has expired", "renew `token`"),
    ],
)
def test_a_login_that_is_refused_in_the_midst_of_a_run_is_told(
    world: AtSnowflake, code: int, words: str, hint: str
) -> None:
    world.server.breaks(refused(code, "08001", "JWT token is invalid."), "LOGIN", spared=4, times=None)
    told = refused_and_then_done(world)
    assert words in told
    assert hint in told


# --- tables that others hold ------------------------------------------------------------------------------------------


def test_too_many_who_wait_for_a_table_are_waited_for(world: AtSnowflake) -> None:
    each_time_in_one_run(world, (TOO_MANY_WAIT, "^UPDATE"), (TOO_MANY_WAIT, "^TRUNCATE"), (TOO_MANY_WAIT, MERGED))
    world.waits(9)
    world.server.breaks(TOO_MANY_WAIT, "^TRUNCATE", times=None)
    assert "too many wait for the same table" in world.refused(7, "run")


def test_a_transaction_that_others_ended_is_begun_again_and_is_no_lock(world: AtSnowflake) -> None:
    """Its SQLSTATE is that of a lock that was waited for too long."""
    ended = refused(615, "57014", "Transaction '1700000000001' was aborted.")
    each_time_in_one_run(world, (ended, "^TRUNCATE"), (ended, MERGED), (ended, "^COMMIT"))
    world.waits(9)
    world.server.breaks(ended, "^TRUNCATE", times=None)
    assert "has ended this transaction, since others waited for it" in world.refused(7, "run")


def test_a_table_that_somebody_holds_is_told_with_who_it_is(world: AtSnowflake) -> None:
    with closing(world.server.connect(world.account_database)) as other:
        asked(other, "BEGIN")
        asked(other, "DELETE FROM a")
        told = world.refused(8, "run")
        assert "is still locked after 4 s" in told
        assert re.search(r"has locked table 'A' in transaction \d+", told)
        assert "SHOW LOCKS IN ACCOUNT" in told
    world.has(1)
    world.does("run")
    world.has(1, 2)


def test_a_fence_that_a_stranger_holds_is_waited_for_and_not_taken(world: AtSnowflake) -> None:
    with closing(world.server.connect(world.account_database)) as other:
        asked(other, "BEGIN")
        asked(other, "UPDATE ingestkit_fence_p SET token = token")
        assert "is still locked after 4 s" in world.refused(8, "run")
        asked(other, "COMMIT")
    world.does("run")
    world.has(1, 2)


def test_in_a_deadlock_all_is_rolled_back_and_done_again(world: AtSnowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service ends the statement alone; the transaction it was in stays open."""
    with closing(world.server.connect(world.account_database)) as other, ThreadPoolExecutor(1) as aside:
        asked(other, "BEGIN")
        asked(other, "DELETE FROM a")
        late: list[Future[object]] = []

        def wait() -> None:
            asked(other, "UPDATE ingestkit_fence_p SET token = token")
            asked(other, "ROLLBACK")

        def meet(step: str) -> None:
            if step == "load.fenced" and not late:
                late.append(aside.submit(wait))
                until_somebody_waits(world)

        monkeypatch.setattr(steps, "reached", meet)
        ended = world.call("run")
    assert ended.code == 0, ended.err
    assert "this and another wait for each other" in ended.err
    world.has(1, 2)


def until_somebody_waits(world: AtSnowflake) -> None:
    with closing(world.server.connect(world.account_database)) as link:
        for _ in range(200):
            if any("WAITING" in row for row in asked(link, "SHOW LOCKS")):
                return
            time.sleep(0.05)
    raise AssertionError("nobody waits")


def test_a_value_that_the_service_names_is_in_nothing_that_is_shown_or_kept(world: AtSnowflake) -> None:
    """The service quotes no numbers."""
    said = "Number out of representable range: type FIXED[SB8](6,2){nullable}, value 12345678.90"
    world.server.breaks(refused(100_046, "22003", f"{said}\n  File 'p/a/part-0.parquet', line 2, character 1"), "^COPY")
    ended = world.call("run")
    assert ended.code == 7
    assert "does not take a value" in ended.err
    shown = [ended.out, ended.err, world.call("runs", "list", "--output", "json").out, world.call("runs", "list").out]
    kept = [path for path in world.root.rglob("*") if path.is_file() and b"12345678" in path.read_bytes()]
    assert kept == []
    assert not any("12345678" in one for one in shown)
