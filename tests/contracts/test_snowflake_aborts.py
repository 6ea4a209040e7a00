"""Transactions in Snowflake that others end: where nobody is told, what comes after would be written by itself.

Or by another transaction, which the next change begins, and by what the service says in one place the next query, too.
"""

import re
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingestkit.errors import Busy, WarehouseError
from ingestkit.model import Fence, LoadMode
from ingestkit.ports import Load, Publication, TargetColumn
from ingestkit.warehouses.snowflake import SnowflakeWarehouse
from tests.contracts.snowflake import account, left_open, warehouse_of
from tests.contracts.warehouse import LINEAGE, PERSON, PIPELINE, STATE, fence, load, publication, ready, write_valid
from tests.snowflake_server import (
    ABORTED,
    ANSWER_LOST,
    LINE_CUT,
    LOGIN_EXPIRED,
    NEVER_ARRIVES,
    Fault,
    SnowflakeServer,
    asked,
    brings,
    delayed,
    refused,
)

pytestmark = [pytest.mark.services, pytest.mark.slow]

server = account

WRITES = {
    LoadMode.REPLACE: r'^TRUNCATE TABLE "D\w+"\."PUBLIC"\."HCP"',
    LoadMode.APPEND: r'^DELETE FROM "D\w+"\."PUBLIC"\."HCP"',
    LoadMode.MERGE: r'^MERGE INTO "D\w+"\."PUBLIC"\."HCP"',
}
BEGUN = r"^SELECT CURRENT_TRANSACTION\(\)$"
RAISED = r'^UPDATE "D\w+"\."PUBLIC"\."INGESTKIT_FENCE_'
FENCED = r"^SELECT CURRENT_TRANSACTION\(\) AS"
COPIED = r'^COPY INTO "D\w+"'
COUNTED = "^SELECT count"
RECEIPT = "^MERGE INTO .*INGESTKIT_RECEIPT_"
COMMIT = "^COMMIT"
OLD, NEW = [("1", "old"), ("2", "old")], [("2", "new"), ("3", "new")]
THEN = {
    LoadMode.REPLACE: NEW,
    LoadMode.APPEND: [*OLD, *NEW],
    LoadMode.MERGE: [("1", "old"), *NEW],
}
PLACES = [
    (mode, place)
    for mode, write in WRITES.items()
    for place in (RAISED, FENCED, write, COPIED, COUNTED, RECEIPT, COMMIT)
    if (mode, place) != (LoadMode.MERGE, COPIED)
]
LATE = [
    *((mode, place, True) for mode, write in WRITES.items() for place in (FENCED, write)),
    (LoadMode.REPLACE, COPIED, True),
    (LoadMode.MERGE, COMMIT, True),
    (LoadMode.REPLACE, FENCED, False),
    (LoadMode.MERGE, COMMIT, False),
]
# Whether the session hears of it, and whether its queries begin transactions.
SAID = [(True, True), (False, True), (False, False)]


class Place:
    """A table with rows of a first batch, and who publishes into it."""

    def __init__(self, server: SnowflakeServer, folder: Path) -> None:
        self.server, self.folder, self.database = server, folder, server.database()
        self.warehouse = self.another("one")

    def another(self, name: str, **more: Any) -> SnowflakeWarehouse:
        return warehouse_of(self.server, self.database, self.folder / name, **more)

    def load(self, rows: list[tuple[str, str]], mode: LoadMode) -> Load:
        name = "-".join(part for row in rows for part in row)
        return load((write_valid(self.folder / f"{name}.parquet", PERSON, rows),), mode)

    def begin(self, mode: LoadMode) -> Publication:
        """The first batch is there; the second one is to be."""
        ready(self.warehouse, "hcp")
        self.warehouse.publish(publication(self.load(OLD, mode)))
        return publication(self.load(NEW, mode), batch="b2", token=2)

    def keeps(self, told: bool, queries: bool) -> None:
        """What the service does when it ends a transaction, and without one."""
        if not told:
            self.server.keeps_aborts_to_itself()
        if not queries:
            self.server.begins_with_changes_alone()

    def has(self, rows: list[tuple[str, str]], *batches: str) -> None:
        """The table holds these, and a receipt of each of the batches; and nobody holds anything."""
        with closing(self.server.connect(self.database)) as link:
            assert sorted(asked(link, "SELECT id, city FROM hcp")) == sorted(rows)
            assert asked(link, "SHOW TRANSACTIONS") == []
        assert tuple(one.batch for one in self.warehouse.receipts(PIPELINE)) == batches


@pytest.fixture
def place(server: SnowflakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield Place(server, tmp_path)
    server.heals()


@pytest.mark.parametrize(("told", "queries"), [*SAID[:2], pytest.param(*SAID[2], marks=pytest.mark.matrix)])
@pytest.mark.parametrize(("mode", "statement"), PLACES)
def test_a_transaction_that_others_end_publishes_nothing_and_is_begun_again(
    place: Place, mode: LoadMode, statement: str, told: bool, queries: bool
) -> None:
    work = place.begin(mode)
    place.keeps(told, queries)
    place.server.breaks(ABORTED, statement)
    before = len(place.server.sent)
    with pytest.raises(WarehouseError) as ended:
        place.warehouse.publish(work)
    assert ended.value.transient
    assert told or "others ended " in str(ended.value)
    begun = any(re.match(WRITES[mode], one.sql) for one in place.server.sent[before:])
    assert begun == (statement not in (RAISED, FENCED))
    place.has(OLD, "b1")
    place.warehouse.publish(work)
    place.has(THEN[mode], "b1", "b2")


@pytest.mark.parametrize("mode", list(WRITES))
def test_what_ends_before_its_number_is_known_goes_on_as_another_transaction(place: Place, mode: LoadMode) -> None:
    work = place.begin(mode)
    place.keeps(told=False, queries=True)
    place.server.breaks(ABORTED, BEGUN)
    place.warehouse.publish(work)
    place.has(THEN[mode], "b1", "b2")


def test_without_a_number_nothing_is_written(place: Place) -> None:
    work = place.begin(LoadMode.REPLACE)
    place.keeps(told=False, queries=False)
    place.server.breaks(ABORTED, BEGUN)
    before = len(place.server.sent)
    with pytest.raises(WarehouseError, match="others ended ") as ended:
        place.warehouse.publish(work)
    assert ended.value.transient
    place.has(OLD, "b1")
    assert not [one for one in place.server.sent[before:] if re.match(RAISED, one.sql)]


@pytest.mark.parametrize(
    ("mode", "statement", "queries"),
    [pytest.param(*late, marks=pytest.mark.matrix) if late[0] is LoadMode.APPEND else late for late in LATE],
)
def test_who_comes_back_after_its_successor_has_published_changes_nothing(
    place: Place, mode: LoadMode, statement: str, queries: bool
) -> None:
    """Its line was cut for a while, and its lease was taken over meanwhile. Its files are gone from the stage, too."""
    work = place.begin(mode)
    place.keeps(told=False, queries=queries)
    place.server.breaks(delayed(9), statement)
    successor = place.another("two", lock_timeout="4s")
    with ThreadPoolExecutor(1) as aside:
        late = aside.submit(place.warehouse.publish, work)
        while not any(one.outcome == "delayed" for one in place.server.sent):
            assert not late.done()
            time.sleep(0.05)
        newer = publication(place.load([("3", "newest"), ("4", "newest")], mode), batch="b3", token=3)
        successor.publish(newer)
        assert not late.done()
        with pytest.raises(WarehouseError, match=r"others ended |misses a file") as ended:
            late.result(60)
    assert ended.value.transient
    then = [("3", "newest"), ("4", "newest")]
    place.has(then if mode is LoadMode.REPLACE else [*OLD, *then], "b1", "b3")


@pytest.mark.parametrize("statement", ["^UPDATE", FENCED, WRITES[LoadMode.REPLACE], COPIED, RECEIPT, COMMIT])
def test_a_login_by_browser_is_not_made_again_in_the_midst_of_a_transaction(
    place: Place, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connector would go on in a new session, beside what the old one holds."""
    work = place.begin(LoadMode.REPLACE)
    person = by_browser(place, monkeypatch)
    place.server.breaks(LOGIN_EXPIRED, statement)
    with pytest.raises(WarehouseError) as ended:
        person.publish(work)
    assert ended.value.transient
    with closing(place.server.connect(place.database)) as link:
        assert sorted(asked(link, "SELECT id, city FROM hcp")) == OLD
    place.server.heals()
    person.publish(work)
    place.has(NEW, "b1", "b2")


def test_a_login_by_browser_says_nothing_where_results_are_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.begin(LoadMode.REPLACE)
    person = by_browser(place, monkeypatch)
    assert [one.batch for one in person.receipts(PIPELINE)] == ["b1"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "to authenticate" in said.err


def by_browser(place: Place, monkeypatch: pytest.MonkeyPatch) -> SnowflakeWarehouse:
    """Of a person at a terminal, whose browser is signed in."""

    monkeypatch.setattr(webbrowser, "open_new", partial(brings, "of-a-person"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    place.server.knows("PERSON", saml="of-a-person")
    return place.another("two", user="PERSON", login="browser", private_key=None)


def change_the_table(warehouse: SnowflakeWarehouse, token: int) -> None:
    wider = (*PERSON, TargetColumn("more", "string"))
    assert warehouse.evolve("hcp", wider, LINEAGE, mine=fence("hcp", token=token))
    assert warehouse.evolve("hcp", wider, LINEAGE) == ()


def add_a_fence(warehouse: SnowflakeWarehouse, token: int) -> None:
    warehouse.fence((fence("hcp", token=token), fence("hco", token=token)))
    assert {model: one.token for model, one in warehouse.fences(PIPELINE).items()} == {"hcp": 1, "hco": token}


@pytest.mark.parametrize(
    ("change", "act"),
    [("DELETE FROM hcp", change_the_table), ("UPDATE ingestkit_fence_opendata SET token = 2", add_a_fence)],
)
def test_what_a_dead_process_holds_is_ended_for_what_comes_before_the_transaction(
    place: Place, change: str, act: Callable[[SnowflakeWarehouse, int], None]
) -> None:
    place.begin(LoadMode.REPLACE)
    successor = place.another("two", lock_timeout="4s")
    with left_open(place.server, place.warehouse, 4, change):
        with pytest.raises(Busy, match="is still locked after 4 s"):
            # An earlier owner, which may only wait.
            act(successor, 3)
        act(successor, 4)
    place.has(OLD, "b1")


@pytest.mark.parametrize("fault", [LINE_CUT, ANSWER_LOST])
@pytest.mark.parametrize("statement", ["^CREATE TABLE IF NOT EXISTS", "^MERGE INTO .*INGESTKIT_FENCE", "^ALTER TABLE"])
def test_what_comes_before_the_transaction_is_looked_at_again_where_its_answer_is_lost(
    place: Place, statement: str, fault: Fault
) -> None:
    place.begin(LoadMode.REPLACE)
    patient = place.another("two", network_timeout="5s", answer_timeout="5s", login_timeout="9s")
    wider = (*PERSON, TargetColumn("more", "string"))

    def come_before() -> None:
        # Of a pipeline that has none yet, whose tables are made.
        patient.fence((Fence("other", "visits", STATE, 2, "visits"),))
        patient.fence((fence("hcp", token=2), fence("hco", token=2)))
        patient.evolve("hcp", wider, LINEAGE, mine=fence("hcp", token=2))

    place.server.breaks(fault, statement)
    with pytest.raises(WarehouseError, match="does not answer") as lost:
        come_before()
    assert lost.value.transient
    come_before()
    assert patient.planned("hcp", wider, LINEAGE) == ()
    assert set(patient.fences(PIPELINE)) == {"hcp", "hco"}


@pytest.mark.parametrize("fault", [LINE_CUT, ANSWER_LOST, refused(3001, "42501", "Insufficient privileges")])
def test_a_commit_that_nothing_tells_of_is_settled_by_the_receipt(place: Place, fault: Any) -> None:
    work = place.begin(LoadMode.APPEND)
    patient = place.another("two", network_timeout="5s", answer_timeout="5s", login_timeout="9s")
    place.server.breaks(fault, "^DESCRIBE TRANSACTION", times=None)
    with pytest.raises(WarehouseError, match="may have been made or not") as unknown:
        patient.publish(work)
    assert unknown.value.transient
    # Nothing is written, and so nothing is asked.
    patient.publish(work)
    place.has(THEN[LoadMode.APPEND], "b1", "b2")


@pytest.mark.parametrize(("told", "queries"), SAID)
@pytest.mark.parametrize("statement", [RAISED, FENCED, "^DELETE", COMMIT])
def test_receipts_are_forgotten_under_the_fence_alone(place: Place, statement: str, told: bool, queries: bool) -> None:
    place.begin(LoadMode.REPLACE)
    place.keeps(told, queries)
    place.server.breaks(ABORTED, statement)
    with pytest.raises(WarehouseError) as ended:
        place.warehouse.void(fence("hcp", token=2))
    assert ended.value.transient
    place.has(OLD, "b1")
    place.warehouse.void(fence("hcp", token=2))
    place.has(OLD)


def test_a_session_that_ends_takes_with_it_what_it_wrote_behind_its_transaction(place: Place) -> None:
    """Even where it cannot say ROLLBACK."""
    work = place.begin(LoadMode.REPLACE)
    place.server.keeps_aborts_to_itself()
    place.server.breaks(ABORTED, WRITES[LoadMode.REPLACE])
    place.server.breaks(NEVER_ARRIVES, "^ROLLBACK", times=None)
    patient = place.another("two", network_timeout="5s", answer_timeout="5s", login_timeout="9s")
    with pytest.raises(WarehouseError, match="others ended "):
        patient.publish(work)
    place.has(OLD, "b1")
