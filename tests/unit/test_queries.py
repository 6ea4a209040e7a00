"""The operator's queries: each on a state of known content, and what becomes of files that are none."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from ingestkit.errors import ConfigError, UsageError
from ingestkit.states import migrate, queries, tables
from ingestkit.states.engine import StateDatabase
from tests.services import PostgresServer, postgres

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
FIRST = "0" * 64
NUMBERS = itertools.count(1)
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]
ON_THEIR_OWN = {
    "audit-trail",
    "count-mismatches",
    "failed-phases",
    "failed-runs",
    "freshness",
    "latest-runs",
    "phase-failure-rate",
    "retry-success-rate",
    "slow-phases",
    "success-rate",
}
"""Those that a test of their own asks for exact rows."""


def ago(**said: float) -> datetime:
    return NOW - timedelta(**said)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture(params=DATABASES)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateDatabase]:
    url = f"sqlite:///{tmp_path}/state.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        name = f"state{next(NUMBERS)}"
        server.does(f"CREATE DATABASE {name}")
        url = server.url(name)
        migrate.upgrade(url)
    opened = StateDatabase.open(url, 5)
    yield opened
    opened.close()


def add_run(state: StateDatabase, pipeline: str, batch: str, attempt: int, status: str, **said: Any) -> None:
    started = said.pop("started_at", ago(hours=1))
    ended = None if status == "OPEN" else said.pop("ended_at", started + timedelta(minutes=1))
    row: dict[str, Any] = {
        "run_id": f"{pipeline}.{batch}.{attempt}",
        "invocation": "i",
        "pipeline": pipeline,
        "batch": batch,
        "attempt": attempt,
        "kind": "run",
        "models": ["a"],
        "status": status,
        "retry": 0,
        "started_at": started,
        "ended_at": ended,
        "config": {},
        "config_hash": "c",
        "counts": {},
        "last_command": "run",
        "touched_at": started,
        "token": 1,
        **{f"phases_{name}": [] for name in ("completed", "skipped", "failed", "pending")},
    }
    with state.write() as conn:
        number = conn.execute(sql.select(sql.func.count()).select_from(tables.pipeline_run)).scalar_one() + 1
        row |= {"number": number} | said
        conn.execute(sql.insert(tables.pipeline_run).values(row))
        of = {
            "run_id": row["run_id"],
            "pipeline": pipeline,
            "batch": batch,
            "status": status,
            "redo": False,
            "token": 1,
        }
        conn.execute(sql.insert(tables.run_model), [of | {"model": model} for model in row["models"]])


def step_over(state: StateDatabase, pipeline: str, number: int, previous: str, own: str, **past: float) -> None:
    facts = {"kind": "skip", "subject": {"batch": f"b{number}"}, "reason": "cut off", "by": "Zoë", "os_user": "ops"}
    row = {"pipeline": pipeline, "number": number, "at": ago(**past), "previous": previous, "hash": own, **facts}
    with state.write() as conn:
        conn.execute(sql.insert(tables.decision).values(row))


def add_stage(state: StateDatabase, run_id: str, stage: str, model: str, status: str, **said: Any) -> None:
    pipeline, batch, _ = run_id.split(".")
    row = {
        "run_id": run_id,
        "stage": stage,
        "model": model,
        "pipeline": pipeline,
        "batch": batch,
        "status": status,
        "retry": 0,
        "started_at": ago(hours=1),
        "token": 1,
        "sequence": 1,
    }
    with state.write() as conn:
        conn.execute(sql.insert(tables.pipeline_stage).values(row | said))


def asked(state: StateDatabase, name: str, **said: str) -> list[tuple[Any, ...]]:
    """The rows of a query, as values in the order of its columns."""
    found = queries.asked(state, queries.find(Path("nowhere"), name, state.dialect), said, NOW)
    return [tuple(row.values()) for row in found]


def test_the_latest_run_of_each_pipeline(state: StateDatabase) -> None:
    add_run(state, "shop", "b1", 1, "SUCCESS", started_at=ago(hours=9))
    add_run(state, "shop", "b2", 1, "FAILED", started_at=ago(hours=8), error="gone", seconds=60.5, verdict="FAILED")
    # Its clock was ahead.
    add_run(state, "clinic", "b9", 1, "SUCCESS", started_at=ago(days=-90))
    add_run(state, "clinic", "b8", 1, "OPEN", started_at=ago(minutes=5), kind="backfill")
    at = ago(hours=8)
    shop = ("shop", "shop.b2.1", "b2", "run", "FAILED", "FAILED", at, at + timedelta(minutes=1), 60.5, "gone")
    clinic = ("clinic", "clinic.b8.1", "b8", "backfill", "OPEN", None, ago(minutes=5), None, None, None)
    assert asked(state, "latest-runs") == [clinic, shop]
    assert asked(state, "latest-runs", pipeline="shop") == [shop]


def test_what_failed_within_a_day(state: StateDatabase) -> None:
    add_run(state, "shop", "b1", 1, "FAILED", ended_at=ago(hours=24), error="on the edge", exit_code=6)
    add_run(state, "shop", "b2", 1, "FAILED", ended_at=ago(hours=24, seconds=1), error="too old", exit_code=6)
    add_run(state, "shop", "b3", 1, "SUCCESS", ended_at=ago(hours=1))
    add_run(state, "clinic", "b4", 2, "FAILED", ended_at=ago(hours=2), error="no answer", exit_code=4)
    clinic = ("clinic", "clinic.b4.2", "b4", 2, ago(hours=2), 4, "no answer")
    shop = ("shop", "shop.b1.1", "b1", 1, ago(hours=24), 6, "on the edge")
    assert asked(state, "failed-runs") == [clinic, shop]
    assert asked(state, "failed-runs", pipeline="shop") == [shop]
    assert asked(state, "failed-runs", since="3h") == [clinic]
    assert asked(state, "failed-runs", since="2026-03-10T09:00") == [clinic]
    assert len(asked(state, "failed-runs", since="2d")) == 3


def test_which_phase_failed_and_why(state: StateDatabase) -> None:
    add_run(state, "shop", "b1", 1, "FAILED", ended_at=ago(hours=5), error="run's word")
    add_stage(state, "shop.b1.1", "extract", "a", "SUCCESS", ended_at=ago(hours=6))
    add_stage(state, "shop.b1.1", "load", "a", "FAILED", ended_at=ago(hours=5), error="rules failed: keys", retry=3)
    add_run(state, "shop", "b2", 1, "FAILED", ended_at=ago(hours=4), error="before any phase")
    add_run(state, "shop", "b3", 1, "OPEN")
    add_stage(state, "shop.b3.1", "validate", "*", "INTERRUPTED", ended_at=ago(hours=3), error="its process ended")
    add_run(state, "shop", "b4", 1, "FAILED", ended_at=ago(days=8), error="long ago")
    assert asked(state, "failed-phases") == [
        ("shop", "shop.b3.1", "OPEN", "validate", "*", "INTERRUPTED", 0, ago(hours=3), "its process ended"),
        ("shop", "shop.b2.1", "FAILED", None, None, None, None, ago(hours=4), "before any phase"),
        ("shop", "shop.b1.1", "FAILED", "load", "a", "FAILED", 3, ago(hours=5), "rules failed: keys"),
    ]
    assert asked(state, "failed-phases", pipeline="clinic") == []


def test_a_phase_that_was_begun_again_and_ended_well_is_told_too(state: StateDatabase) -> None:
    add_run(state, "shop", "b1", 1, "SUCCESS", ended_at=ago(hours=5))
    add_stage(state, "shop.b1.1", "validate", "a", "SUCCESS", ended_at=ago(hours=6), retry=1)
    add_stage(state, "shop.b1.1", "load", "a", "SKIPPED", ended_at=ago(hours=5), retry=2, error="published already")
    add_stage(state, "shop.b1.1", "gate", "*", "SUCCESS", ended_at=ago(hours=5))
    assert asked(state, "failed-phases") == [
        ("shop", "shop.b1.1", "SUCCESS", "load", "a", "SKIPPED", 2, ago(hours=5), None),
        ("shop", "shop.b1.1", "SUCCESS", "validate", "a", "SUCCESS", 1, ago(hours=6), None),
    ]


def test_phases_that_took_over_twice_as_long_as_expected(state: StateDatabase) -> None:
    for model, status, seconds in (
        ("twice", "SUCCESS", 20.0),
        ("slow", "SUCCESS", 20.5),
        ("slower", "FAILED", 90.0),
        ("running", "RUNNING", None),
    ):
        add_stage(state, "shop.b1.1", "load", model, status, seconds=seconds, expected_seconds=10.0)
    for status in ("SKIPPED", "PENDING"):
        add_stage(state, "shop.b1.1", "load", status, status, seconds=90.0, expected_seconds=10.0)
    add_stage(state, "shop.b1.1", "load", "unknown", "SUCCESS", seconds=500.0)
    add_stage(state, "shop.b1.1", "gate", "*", "SUCCESS", seconds=0.9, expected_seconds=0.1)
    at = ago(hours=1)
    assert asked(state, "slow-phases") == [
        ("shop", "shop.b1.1", "load", "running", "RUNNING", at, 10.0, pytest.approx(3600, abs=0.01), 360),
        ("shop", "shop.b1.1", "load", "slower", "FAILED", at, 10.0, 90.0, 9.0),
        ("shop", "shop.b1.1", "load", "slow", "SUCCESS", at, 10.0, 20.5, pytest.approx(2.05, abs=0.06)),
    ]
    assert [row[3] for row in asked(state, "slow-phases", times="10")] == ["running"]
    assert [row[2] for row in asked(state, "slow-phases", least="0")].count("gate") == 1
    assert asked(state, "slow-phases", since="59m") == []


def test_the_audit_trail_with_who_why_and_whether_the_chain_is_whole(state: StateDatabase) -> None:
    step_over(state, "shop", 1, FIRST, "h1", days=400)
    step_over(state, "shop", 2, "h1", "h2", days=3)
    step_over(state, "shop", 3, "other", "h3", days=2)
    step_over(state, "clinic", 1, FIRST, "k1", days=1)
    told = ("skip", "Zoë", "ops", "cut off")
    clinic = ("clinic", 1, ago(days=1), *told, '{"batch": "b1"}', "whole", "k1")
    third = ("shop", 3, ago(days=2), *told, '{"batch": "b3"}', "broken", "h3")
    second = ("shop", 2, ago(days=3), *told, '{"batch": "b2"}', "whole", "h2")
    assert asked(state, "audit-trail") == [clinic, third, second]
    links = [row[8] for row in asked(state, "audit-trail", pipeline="shop", since="500d")]
    assert links == ["broken", "whole", "whole"]


def test_how_fresh_each_model_is(state: StateDatabase) -> None:
    for model, batch, status, hours in (
        ("a", "b1", "done", 50),
        ("a", "b2", "done", 26.04),
        ("a", "b3", "skipped", 2),
        ("b", "b2", "done", 1.5),
    ):
        row = {"pipeline": "shop", "model": model, "batch": batch, "status": status, "generation": 1, "run_id": "r"}
        with state.write() as conn:
            conn.execute(sql.insert(tables.completion).values(row | {"counts": {}, "token": 1, "at": ago(hours=hours)}))
    oldest = ("shop", "a", "b2", ago(hours=26.04), 26.0)
    assert asked(state, "freshness") == [oldest, ("shop", "b", "b2", ago(hours=1.5), 1.5)]
    assert asked(state, "freshness", older="1d") == [oldest]
    assert asked(state, "freshness", pipeline="clinic") == []


def add_completion(state: StateDatabase, batch: str, at: datetime) -> None:
    row = {"pipeline": "shop", "model": "a", "batch": batch, "status": "done", "generation": 1, "run_id": "r"}
    with state.write() as conn:
        conn.execute(sql.insert(tables.completion).values(row | {"counts": {}, "token": 1, "at": at}))


def test_an_older_batch_that_was_done_again_is_not_the_newest(state: StateDatabase) -> None:
    # b2 lies below the floor, b3 was stepped over; both were wanted after all.
    step_over(state, "shop", 3, FIRST, "h3", hours=50)
    began = {("b4", 1, "run"): 40, ("b5", 1, "stage"): 30, ("b4", 2, "backfill"): 4}
    began |= {("b4", 3, "run"): 3, ("b3", 1, "backfill"): 2, ("b2", 1, "backfill"): 1}
    for (batch, attempt, kind), hours in began.items():
        add_run(state, "shop", batch, attempt, "SUCCESS", kind=kind, started_at=ago(hours=hours))
    for batch, hours in (("b5", 30), ("b4", 3), ("b3", 2), ("b2", 1)):
        add_completion(state, batch, ago(hours=hours))
    assert asked(state, "freshness") == [("shop", "a", "b5", ago(hours=30), 30.0)]


def test_the_newest_batch_is_the_newest_though_it_was_stepped_over_first(state: StateDatabase) -> None:
    add_run(state, "shop", "b1", 1, "SUCCESS", started_at=ago(hours=40))
    step_over(state, "shop", 2, FIRST, "h2", hours=20)
    add_run(state, "shop", "b2", 1, "SUCCESS", kind="backfill", started_at=ago(hours=10))
    add_completion(state, "b1", ago(hours=39))
    add_completion(state, "b2", ago(hours=9))
    assert asked(state, "freshness") == [("shop", "a", "b2", ago(hours=9), 9.0)]


def test_how_many_runs_ended_well(state: StateDatabase) -> None:
    for number, status in enumerate(["SUCCESS", "SUCCESS", "SUCCESS_WITH_REJECTS", "FAILED", "SKIPPED", "SUPERSEDED"]):
        add_run(state, "shop", f"b{number}", 1, status)
    add_run(state, "shop", "b7", 1, "OPEN")
    add_run(state, "clinic", "b1", 1, "SUCCESS")
    add_run(state, "clinic", "b0", 1, "FAILED", ended_at=ago(days=31))
    add_run(state, "flaky", "b1", 1, "FAILED")
    add_run(state, "flaky", "b1", 2, "FAILED")
    add_run(state, "flaky", "b1", 3, "SUCCESS")
    clinic = ("clinic", 1, 1, 0, 0, 100.0)
    assert asked(state, "success-rate") == [("flaky", 3, 1, 0, 2, 33.3), ("shop", 4, 2, 1, 1, 75.0), clinic]
    assert asked(state, "success-rate", pipeline="clinic", since="32d") == [("clinic", 2, 1, 0, 1, 50.0)]


def test_how_many_phases_failed(state: StateDatabase) -> None:
    for number, status in enumerate(["SUCCESS", "FAILED", "INTERRUPTED", "SKIPPED", "RUNNING", "PENDING"]):
        ended = None if status in ("RUNNING", "PENDING") else ago(hours=1)
        add_stage(state, f"shop.b{number}.1", "load", "a", status, ended_at=ended)
    add_stage(state, "shop.b9.1", "load", "a", "FAILED", ended_at=ago(days=31))
    add_stage(state, "shop.b1.1", "extract", "a", "SUCCESS", ended_at=ago(hours=1))
    add_stage(state, "shop.b1.1", "validate", "a", "SUCCESS", ended_at=ago(hours=1), retry=1)
    add_stage(state, "shop.b2.1", "validate", "a", "SKIPPED", ended_at=ago(hours=1), retry=1)
    add_stage(state, "shop.b3.1", "validate", "a", "FAILED", ended_at=ago(hours=1), retry=1)
    for batch in ("b4", "b5"):
        add_stage(state, f"shop.{batch}.1", "validate", "a", "SUCCESS", ended_at=ago(hours=1))
    assert asked(state, "phase-failure-rate") == [
        ("shop", "load", 3, 1, 1, 0, 66.7),
        ("shop", "validate", 5, 1, 0, 2, 60.0),
        ("shop", "extract", 1, 0, 0, 0, 0.0),
    ]


def test_how_many_that_were_begun_again_ended_well(state: StateDatabase) -> None:
    add_run(state, "shop", "b1", 1, "FAILED")
    add_run(state, "shop", "b1", 2, "SUCCESS")
    add_run(state, "shop", "b2", 1, "SUCCESS_WITH_REJECTS", retry=2)
    add_run(state, "shop", "b3", 1, "SUPERSEDED")
    add_run(state, "shop", "b3", 2, "FAILED")
    add_run(state, "shop", "b4", 1, "FAILED")
    add_run(state, "shop", "b4", 2, "OPEN")
    for attempt in (1, 2, 3):
        # A backfill is none.
        add_run(state, "shop", "b5", attempt, "SUCCESS")
    add_run(state, "shop", "b6", 1, "FAILED")
    # Of another model: nothing of it was tried before.
    add_run(state, "shop", "b6", 2, "SUCCESS", models=["b"])
    add_stage(state, "shop.b2.1", "load", "a", "SUCCESS", ended_at=ago(hours=1), retry=1)
    add_stage(state, "shop.b2.1", "load", "b", "SUCCESS", ended_at=ago(hours=1))
    add_stage(state, "shop.b3.2", "load", "a", "INTERRUPTED", ended_at=ago(hours=1), retry=4)
    add_stage(state, "shop.b4.2", "extract", "a", "RUNNING", retry=1)
    assert asked(state, "retry-success-rate") == [("shop", "load", 2, 1, 1, 50.0), ("shop", "run", 3, 2, 1, 66.7)]


def test_counts_that_do_not_add_up(state: StateDatabase) -> None:
    def count(run_id: str, validated: dict[str, int], loaded: dict[str, int] | None, *, stale: bool = False) -> None:
        for stage, counts, sequence in (("validate", validated, 5), ("load", loaded, 4 if stale else 6)):
            if counts is not None:
                sidecar = {"token": 1, "sequence": sequence, "counts": counts}
                add_stage(state, run_id, stage, "a", "SUCCESS", ended_at=ago(hours=1), sidecar=sidecar)

    whole = {"records": 10, "rejected": 1, "valid": 9}
    count("shop.b1.1", whole, {"staged": 9, "loaded": 9})
    count("shop.b2.1", whole, {"staged": 9, "loaded": 3, "superseded": 4, "deletes": 1, "filtered": 1})
    count("shop.b3.1", {"records": 10, "rejected": 1, "valid": 8}, None)
    count("shop.b4.1", whole, {"staged": 8, "loaded": 8})
    count("shop.b5.1", whole, {"staged": 9, "loaded": 7, "superseded": 1})
    count("shop.b6.1", {"files": 1}, {"loaded": 0})
    count("shop.b7.1", whole, {"staged": 4, "loaded": 4}, stale=True)
    add_stage(state, "shop.b8.1", "validate", "a", "RUNNING")
    at = ago(hours=1)
    assert asked(state, "count-mismatches") == [
        ("shop", "b3", "a", "shop.b3.1", at, 10, 1, 8, None, 0, 0, 0, None, 1, None, None),
        ("shop", "b4", "a", "shop.b4.1", at, 10, 1, 9, 8, 0, 0, 0, 8, 0, 1, 0),
        ("shop", "b5", "a", "shop.b5.1", at, 10, 1, 9, 9, 1, 0, 0, 7, 0, 0, 1),
    ]
    assert asked(state, "count-mismatches", since="59m") == []


def test_every_query_that_comes_with_the_program_says_what_it_shows_and_finds_nothing_where_nothing_is(
    state: StateDatabase,
) -> None:
    known = queries.known(Path("nowhere"))
    assert set(known) == ON_THEIR_OWN
    for one in known.values():
        assert asked(state, one.name) == []
        assert one.shows.endswith("."), one.name
        assert "pipeline" in {parameter.name for parameter in one.parameters}, one.name


def test_what_is_asked_of_sqlite_needs_no_newer_one_than_that_of_debian_11() -> None:
    # The operators -> and ->> came with SQLite 3.38.
    asked = [queries.find(Path("nowhere"), name, "sqlite") for name in ON_THEIR_OWN]
    assert [one.file.name for one in asked if "->" in one.statement] == []


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of a project's own queries."""
    folder = tmp_path / "sql" / "ops"
    folder.mkdir(parents=True)
    return folder


def test_a_projects_query_is_added_and_goes_before_one_of_the_same_name(
    state: StateDatabase, own: Path, tmp_path: Path
) -> None:
    (own / "mine.sql").write_text("-- What I ask.\n-- :word text it's\nSELECT :word AS word, '100%' AS much;\n")
    (own / "success-rate.sql").write_text("-- None.\nSELECT 1 AS one WHERE 1 = 0")
    found = queries.find(tmp_path, "mine", state.dialect)
    assert queries.asked(state, found, {}, NOW) == [{"word": "it's", "much": "100%"}]
    assert queries.asked(state, found, {"word": "'; --"}, NOW) == [{"word": "'; --", "much": "100%"}]
    assert queries.asked(state, queries.find(tmp_path, "success-rate", state.dialect), {}, NOW) == []
    assert {"mine", "latest-runs"} < set(queries.known(tmp_path))
    assert queries.known(tmp_path)["success-rate"].shows == "None."


def test_a_query_for_one_database_goes_before_one_for_all(own: Path, tmp_path: Path) -> None:
    (own / "mine.sql").write_text("-- For all.\nSELECT 1")
    (own / "mine.sqlite.sql").write_text("-- For one.\nSELECT 2")
    (own / "theirs.sqlite.sql").write_text("-- For one.\nSELECT 2")
    assert queries.find(tmp_path, "mine", "sqlite").shows == "For one."
    assert queries.find(tmp_path, "mine", "postgresql").shows == "For all."
    with pytest.raises(UsageError, match="not written for postgresql"):
        queries.find(tmp_path, "theirs", "postgresql")


@pytest.mark.parametrize("name", ["../ops/latest-runs", "latest-run", "", "."])
def test_what_is_no_query_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no query"):
        queries.find(Path("nowhere"), name, "sqlite")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM decision",
        "DROP TABLE decision",
        "DELETE FROM decision RETURNING number",
        "WITH gone AS (DELETE FROM decision RETURNING number) SELECT * FROM gone",
        "COMMIT; DROP TABLE decision; SELECT 1",
        "COMMIT; DELETE FROM decision RETURNING number",
        "COMMIT; BEGIN READ WRITE; DELETE FROM decision; COMMIT; SELECT :now AS now",
        "SELECT 1; COMMIT; DROP TABLE decision",
        "ROLLBACK; SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; DROP TABLE decision",
        "SELECT set_config('transaction_read_only', 'off', false); DROP TABLE decision",
        "PRAGMA query_only = OFF; DELETE FROM decision",
        "PRAGMA query_only = OFF",
        "ATTACH 'another.db' AS another",
        "COMMIT",
    ],
)
def test_a_query_cannot_write(state: StateDatabase, own: Path, tmp_path: Path, statement: str) -> None:
    decided = {"kind": "pause", "subject": {}, "reason": "r", "by": "b", "os_user": "o", "previous": FIRST, "hash": "h"}
    with state.write() as conn:
        conn.execute(sql.insert(tables.decision).values({"pipeline": "shop", "number": 1, "at": NOW, **decided}))
    (own / "mine.sql").write_text(statement)
    found = queries.find(tmp_path, "mine", state.dialect)
    with pytest.raises(ConfigError, match=r"mine.sql cannot be asked: "):
        queries.asked(state, found, {}, NOW)
    with state.read() as conn:
        assert conn.execute(sql.select(sql.func.count()).select_from(tables.decision)).scalar_one() == 1


@pytest.mark.parametrize(
    "text",
    [
        ":x",
        "'':x''",
        r"\:x \\:x \\",
        "a::b :now: 10:30",
        "100% :s %s",
        "-- :x",
        "/* :x",
    ],
)
def test_what_is_quoted_is_no_parameter_and_reaches_the_database_as_it_is(
    state: StateDatabase, own: Path, tmp_path: Path, text: str
) -> None:
    (own / "mine.sql").write_text(
        f"-- See :y.\nSELECT '{text}' AS word, :now AS \"at :z\" /* :u\n :v */ -- not :w\n;\n-- and :t"
    )
    found = queries.find(tmp_path, "mine", state.dialect)
    read = text.replace("''", "'")
    assert queries.asked(state, found, {}, NOW) == [{"word": read, "at :z": NOW}]
    (own / "mine.sql").write_text(f"SELECT '{text}' AS word")
    assert queries.asked(state, queries.find(tmp_path, "mine", state.dialect), {}, NOW) == [{"word": read}]


def test_a_query_may_take_json_apart(state: StateDatabase, own: Path, tmp_path: Path) -> None:
    (own / "mine.sqlite.sql").write_text("SELECT value AS n FROM json_each('[1,2]') ORDER BY 1")
    (own / "mine.postgresql.sql").write_text("SELECT n FROM json_array_elements_text('[1,2]') AS n ORDER BY 1")
    found = queries.asked(state, queries.find(tmp_path, "mine", state.dialect), {}, NOW)
    assert [int(row["n"]) for row in found] == [1, 2]
    with state.write() as conn:
        conn.execute(sql.delete(tables.lease))


@pytest.mark.services
def test_what_only_postgresql_quotes_or_casts_is_no_parameter_either(
    server: PostgresServer, own: Path, tmp_path: Path
) -> None:
    server.does("CREATE DATABASE quoting")
    migrate.upgrade(server.url("quoting"))
    (own / "mine.sql").write_text(
        r"SELECT E'it\'s :x' AS a, $$:x$$ AS b, $t$ ':x $t$ AS c, '7'::int AS d, (ARRAY[1,2,3])[2:3] AS e"
    )
    opened = StateDatabase.open(server.url("quoting"), 5)
    try:
        found = queries.asked(opened, queries.find(tmp_path, "mine", "postgresql"), {}, NOW)
    finally:
        opened.close()
    assert found == [{"a": "it's :x", "b": ":x", "c": " ':x ", "d": 7, "e": [2, 3]}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SELECT word FROM nowhere", "cannot be asked: .*nowhere"),
        ("SELECT 1 WHERE 1 = :undeclared", "uses :undeclared and does not declare it"),
        ("-- :day date\nSELECT 1", "`-- :day date` declares nothing"),
        ("-- :day instant soon\nSELECT 1", "'soon' is no instant"),
        ("", "cannot be asked|returns no rows"),
    ],
)
def test_a_file_that_is_no_query_is_an_error_of_the_configuration(
    state: StateDatabase, own: Path, tmp_path: Path, text: str, told: str
) -> None:
    (own / "mine.sql").write_text(text)
    with pytest.raises(ConfigError, match=f"mine.sql.*{told}"):
        queries.asked(state, queries.find(tmp_path, "mine", state.dialect), {}, NOW)


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("failed-runs", {"since": "yesterday"}, "since=yesterday: 'yesterday' is no instant"),
        ("failed-runs", {"since": "99999999999w"}, "is no instant"),
        ("failed-runs", {"sinse": "1d"}, "has no parameter 'sinse'; did you mean 'since'"),
        ("slow-phases", {"times": "many"}, "times=many: could not convert"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(
    state: StateDatabase, name: str, said: dict[str, str], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        queries.asked(state, queries.find(Path("nowhere"), name, state.dialect), said, NOW)
