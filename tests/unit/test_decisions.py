"""Decisions: chained from the first, the same after every journey, and any change in them found."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sql

from ingestkit.errors import StateError
from ingestkit.states import decisions, tables
from ingestkit.states.decisions import FIRST, Decision
from ingestkit.states.engine import StateDatabase

AT = datetime(2026, 3, 1, 13, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[StateDatabase]:
    opened = StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 5)
    yield opened
    opened.close()


@pytest.fixture
def three(db: StateDatabase) -> tuple[Decision, ...]:
    with db.write() as conn:
        return (
            decisions.record(conn, "p", "skip", {"batch": "b1", "models": ("a",)}, reason="broken", by="Åsa", at=AT),
            decisions.record(conn, "p", "pause", {}, reason=None, by=None, at=AT),
            decisions.record(conn, "p", "resume", {}, reason="done", by="Åsa", at=AT),
        )


def test_each_decision_holds_the_hash_of_the_one_before(three: tuple[Decision, ...]) -> None:
    assert [one.number for one in three] == [1, 2, 3]
    assert [one.previous for one in three] == [FIRST, three[0].hash, three[1].hash]
    decisions.verify(three)


def test_each_pipeline_has_a_chain_of_its_own(db: StateDatabase, three: tuple[Decision, ...]) -> None:
    with db.write() as conn:
        other = decisions.record(conn, "q", "pause", {}, reason=None, by=None, at=AT)
    assert (other.number, other.previous) == (1, FIRST)
    assert other.hash != three[0].hash


def test_a_decision_is_the_same_after_the_database_and_after_json(
    db: StateDatabase, three: tuple[Decision, ...]
) -> None:
    with db.read() as conn:
        stored = decisions.chain(conn, "p")
    assert [one.hash for one in stored] == [one.hash for one in three]
    assert stored[0].at == AT
    decisions.verify(stored)
    copied = tuple(Decision.from_json(json.loads(json.dumps(one.to_json()))) for one in three)
    assert copied == stored
    decisions.verify(copied)


@pytest.mark.parametrize(
    "change",
    [
        {"pipeline": "q"},
        {"number": 7},
        {"kind": "approve"},
        {"subject": {"batch": "b2"}},
        {"reason": "fine"},
        {"by": "somebody"},
        {"os_user": "somebody"},
        {"at": datetime(2026, 3, 1, tzinfo=UTC)},
        {"previous": "1" * 64},
        {"hash": "1" * 64},
    ],
)
def test_a_change_in_any_field_breaks_the_chain(three: tuple[Decision, ...], change: dict[str, object]) -> None:
    changed = replace(three[1], **change)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="was changed"):
        decisions.verify([three[0], changed, three[2]])


def test_a_decision_rewritten_with_its_hash_is_found_by_the_next(three: tuple[Decision, ...]) -> None:
    changed = replace(three[1], reason="another")
    facts = {name: getattr(changed, name) for name in changed.__slots__ if name != "hash"}
    forged = replace(changed, hash=decisions.hash_of(facts))
    decisions.verify([three[0], forged])
    with pytest.raises(StateError, match="decision 3"):
        decisions.verify([three[0], forged, three[2]])


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_decision_is_found(three: tuple[Decision, ...], missing: int) -> None:
    left = [one for number, one in enumerate(three) if number != missing]
    with pytest.raises(StateError):
        decisions.verify(left)


def test_a_state_that_lost_its_decisions_gets_them_back(db: StateDatabase, three: tuple[Decision, ...]) -> None:
    with db.write() as conn:
        conn.execute(sql.delete(tables.decision).where(tables.decision.c.number > 1))
        assert decisions.restore(conn, reversed(three)) == 2
        assert decisions.restore(conn, three) == 0
        restored = decisions.chain(conn, "p")
    decisions.verify(restored)
    assert [one.hash for one in restored] == [one.hash for one in three]


def test_two_states_that_decided_apart_are_not_mixed(db: StateDatabase, three: tuple[Decision, ...]) -> None:
    with db.write() as conn:
        conn.execute(sql.delete(tables.decision).where(tables.decision.c.number > 2))
        decisions.record(conn, "p", "pause", {}, reason="elsewhere", by=None, at=AT)
    with db.write() as conn, pytest.raises(StateError, match="decision 3 of p is another one"):
        decisions.restore(conn, three)


def test_the_copy_in_the_lake_is_named_by_number_and_hash(three: tuple[Decision, ...]) -> None:
    assert three[1].lake_name() == f"_decisions/p/000002-{three[1].hash[:8]}.json"


def test_the_user_is_the_systems_word(monkeypatch: pytest.MonkeyPatch) -> None:
    before = decisions.os_user()
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")
    assert decisions.os_user() == before
