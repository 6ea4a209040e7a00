"""What only a DuckDB file does: it is locked by a process, replaced beside itself, damaged, killed over its log."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from ingestkit import steps
from ingestkit.errors import Busy, WarehouseError
from ingestkit.model import LoadMode
from ingestkit.ports import TargetColumn
from ingestkit.warehouses.duckdb import DuckdbWarehouse
from tests.contracts.warehouse import (
    LINEAGE,
    PERSON,
    PIPELINE,
    WITHOUT_WINDOW,
    Judge,
    fence,
    load,
    publication,
    ready,
    write_valid,
)


class Clock:
    """Time that passes only while somebody sleeps, and then does what it was given to do."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 1, tzinfo=UTC)
        self.naps = 0
        self.at_nap: Callable[[int], None] = lambda nap: None

    def now(self) -> datetime:
        return self.time

    def elapsed(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        self.time += timedelta(seconds=seconds)
        self.at_nap(self.naps)


class Heard:
    """Progress that keeps what was said."""

    def __init__(self) -> None:
        self.said_lines: list[str] = []

    def began(self, stage: str, model: str, total: int | None) -> None: ...

    def moved(self, stage: str, model: str, by: int) -> None: ...

    def ended(self, stage: str, model: str, status: str) -> None: ...

    def said(self, message: str, **facts: object) -> None:
        self.said_lines.append(message)

    def warned(self, message: str, **facts: object) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def warehouse(tmp_path: Path, clock: Clock, heard: Heard) -> DuckdbWarehouse:
    path = tmp_path / "data" / "warehouse.duckdb"
    return DuckdbWarehouse(path, "main", 10.0, "300MiB", 2, clock, heard, tmp_path / "scratch")


@pytest.fixture
def holder(warehouse: DuckdbWarehouse) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open until it reads a line."""
    warehouse.check()
    script = (
        f"import duckdb; c = duckdb.connect({str(warehouse.path)!r}); print('open', flush=True); input(); c.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_another_process_keeps_open_is_busy_and_names_it(
    warehouse: DuckdbWarehouse, holder: subprocess.Popen[str], clock: Clock, heard: Heard
) -> None:
    with pytest.raises(Busy, match=f"process {holder.pid}") as busy:
        warehouse.fences(PIPELINE)
    assert str(warehouse.path) in busy.value.message
    assert busy.value.exit_code == 8
    assert clock.naps == 50
    assert heard.said_lines == [f"{warehouse.path} is open in process {holder.pid}; waiting for it, 10 s at most"]


def test_a_file_that_is_given_back_in_time_is_taken(
    warehouse: DuckdbWarehouse, holder: subprocess.Popen[str], clock: Clock, heard: Heard
) -> None:
    def give_back(nap: int) -> None:
        if nap == 3:
            holder.communicate("\n", timeout=60)

    clock.at_nap = give_back
    warehouse.fence((fence("hcp"),))
    assert clock.naps == 3
    assert len(heard.said_lines) == 1
    assert warehouse.fences(PIPELINE) == {"hcp": fence("hcp")}


def test_the_file_is_free_between_calls(warehouse: DuckdbWarehouse, tmp_path: Path) -> None:
    ready(warehouse, "hcp")
    warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),))))
    warehouse.query("SELECT 1")
    script = f"import duckdb; print(duckdb.connect({str(warehouse.path)!r}).sql('from hcp').fetchall()[0][:2])"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert seen.stdout == "('1', 'x')\n"


def test_asking_a_missing_file_does_not_make_it(warehouse: DuckdbWarehouse) -> None:
    assert not warehouse.present()
    assert warehouse.fences(PIPELINE) == {}
    assert warehouse.receipts(PIPELINE) == ()
    assert warehouse.table_owner("hcp") is None
    with pytest.raises(WarehouseError, match="is gone"):
        warehouse.query("SELECT 1")
    with pytest.raises(WarehouseError, match="is gone"):
        warehouse.publish(publication())
    assert not warehouse.path.parent.exists()


def test_a_file_of_somebody_else_has_no_fences(warehouse: DuckdbWarehouse) -> None:
    warehouse.path.parent.mkdir()
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    assert warehouse.fences(PIPELINE) == {}
    assert warehouse.receipts(PIPELINE) == ()
    warehouse.check()
    assert warehouse.query("SELECT count(*) FROM mine") == [(0,)]


def test_a_new_file_appears_whole_or_not_at_all(warehouse: DuckdbWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(reached: str) -> None:
        if reached == "warehouse.created":
            assert not warehouse.present()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "reached", end)
        with pytest.raises(KeyboardInterrupt):
            warehouse.check()
    assert names_in(warehouse.path.parent) == []
    warehouse.check()
    assert names_in(warehouse.path.parent) == ["warehouse.duckdb"]


def test_a_file_made_meanwhile_is_kept(warehouse: DuckdbWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    quicker = replace(warehouse)

    def overtake(reached: str) -> None:
        monkeypatch.setattr(steps, "reached", lambda step: None)
        quicker.check()
        quicker.fence((fence("hcp", token=3),))

    monkeypatch.setattr(steps, "reached", overtake)
    warehouse.check()
    assert warehouse.fences(PIPELINE) == {"hcp": fence("hcp", token=3)}
    assert names_in(warehouse.path.parent) == ["warehouse.duckdb"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["load.fenced", "load.rows_written", "load.before_commit", "load.committed"])
@pytest.mark.parametrize("mode", WITHOUT_WINDOW)
def test_a_kill_leaves_all_of_a_publication_or_nothing(
    warehouse: DuckdbWarehouse, tmp_path: Path, step: str, mode: LoadMode
) -> None:
    ready(warehouse, "hcp")
    rows = [(str(number), "x") for number in range(200_000)]
    old = write_valid(tmp_path / "a.parquet", PERSON, rows[:10])
    new = write_valid(tmp_path / "b.parquet", PERSON, rows)
    warehouse.publish(publication(load((old,), mode)))
    script = f"""
        import os, signal
        from pathlib import Path
        from ingestkit import steps
        from ingestkit.model import LoadMode
        from ingestkit.pipeline import SystemClock
        from ingestkit.warehouses.duckdb import DuckdbWarehouse
        from ingestkit.ports import ValidFile
        from tests.contracts.warehouse import load, publication

        def kill(reached):
            if reached == {step!r}:
                os.kill(os.getpid(), signal.SIGKILL)

        steps.reached = kill
        path, scratch = Path({str(warehouse.path)!r}), Path({str(warehouse.scratch)!r})
        warehouse = DuckdbWarehouse(path, "main", 10.0, "300MiB", 2, SystemClock(), None, scratch)
        file = ValidFile(Path({str(new.path)!r}), {new.source_file!r}, {new.file_id!r}, {new.rows})
        warehouse.publish(publication(load((file,), LoadMode.{mode.name}), batch="b2", token=2))
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    committed = step == "load.committed"
    assert len(warehouse.receipts(PIPELINE)) == (2 if committed else 1)
    assert warehouse.fences(PIPELINE)["hcp"].token == (2 if committed else 1)
    judge = Judge()
    stand = warehouse.publish(publication(load((new,), mode), batch="b2", token=3, judge=judge))
    assert stand["hcp"].token == (2 if committed else 3)
    assert bool(judge.seen) != committed
    expected = {LoadMode.REPLACE: 200_000, LoadMode.APPEND: 200_010, LoadMode.MERGE: 200_000}[mode]
    assert warehouse.query('SELECT count(*), count(DISTINCT id), count(DISTINCT "_batch") FROM hcp') == [
        (expected, 200_000, 2 if mode is LoadMode.APPEND else 1)
    ]


def test_views_indexes_comments_and_constraints_outlive_a_replace(warehouse: DuckdbWarehouse, tmp_path: Path) -> None:
    ready(warehouse, "hcp", "hco")
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("CREATE VIEW cities AS SELECT city FROM hcp")
        connection.execute("CREATE VIEW more AS SELECT * FROM hco")
        connection.execute("CREATE INDEX by_city ON hco (city)")
        connection.execute("COMMENT ON TABLE hco IS 'organisations'")
    for number, city in enumerate("xyz"):
        file = write_valid(tmp_path / f"{number}.parquet", PERSON, [("1", city), ("2", "q")])
        warehouse.publish(publication(load((file,)), load((file,), model="hco"), batch=str(number)))
    assert sorted(warehouse.query("SELECT city FROM cities")) == [("q",), ("z",)]
    assert warehouse.query("SELECT count(*) FROM more WHERE city = 'z'") == [(1,)]
    assert warehouse.query("SELECT index_name FROM duckdb_indexes()") == [("by_city",)]
    assert warehouse.query("SELECT comment FROM duckdb_tables() WHERE table_name = 'hco'") == [("organisations",)]
    assert warehouse.query("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '%new'") == [(0,)]


@pytest.mark.slow
def test_replacing_again_and_again_does_not_let_the_file_grow(warehouse: DuckdbWarehouse, tmp_path: Path) -> None:
    ready(warehouse, "hcp")
    rows = [(str(number), f"{number * 7919 % 1_000_003}") for number in range(300_000)]
    file = write_valid(tmp_path / "a.parquet", PERSON, rows)
    sizes = []
    for generation in range(1, 7):
        warehouse.publish(publication(load((file,), generation=generation)))
        sizes.append(warehouse.path.stat().st_size)
    assert max(sizes) < 2.5 * sizes[0]


def test_a_view_is_not_taken_for_a_table(warehouse: DuckdbWarehouse) -> None:
    warehouse.check()
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("CREATE VIEW hcp AS SELECT 1 AS id")
    with pytest.raises(WarehouseError, match="hcp is a view"):
        warehouse.evolve("hcp", PERSON, LINEAGE)


def test_the_tables_of_ingestkit_are_no_targets(warehouse: DuckdbWarehouse) -> None:
    warehouse.check()
    with pytest.raises(WarehouseError, match="ingestkit's own"):
        warehouse.fence((fence("hcp", table="Ingestkit_Receipt"),))


def test_names_that_differ_in_case_alone_are_one_table(warehouse: DuckdbWarehouse) -> None:
    warehouse.check()
    warehouse.fence((fence("hcp", table="People"),))
    assert warehouse.table_owner("PEOPLE") == (PIPELINE, "hcp")
    with pytest.raises(WarehouseError, match="belongs to"):
        warehouse.fence((fence("hco", table="people"),))
    warehouse.evolve("People", PERSON, LINEAGE)
    assert warehouse.evolve("people", (TargetColumn("ID", "string"), TargetColumn("City", "string")), LINEAGE) == ()


@pytest.mark.parametrize("found", ["decimal(12,2)", "string", None])
def test_a_valid_file_that_is_not_as_the_contract_says_is_refused(
    warehouse: DuckdbWarehouse, tmp_path: Path, found: str | None
) -> None:
    wanted = (*PERSON, TargetColumn("amount", "decimal(10,2)"))
    warehouse.check()
    warehouse.fence((fence("hcp"),))
    warehouse.evolve("hcp", wanted, LINEAGE)
    has = (*PERSON, TargetColumn("amount", found)) if found else PERSON
    good = write_valid(tmp_path / "a.parquet", wanted, [])
    bad = write_valid(tmp_path / "b.parquet", has, [])
    with pytest.raises(WarehouseError, match=r"hcp\.amount is DECIMAL\(10,2\)"):
        warehouse.publish(publication(replace(load((good, bad)), columns=wanted)))


def test_repeated_keys_are_never_merged_even_if_nobody_judges(warehouse: DuckdbWarehouse, tmp_path: Path) -> None:
    ready(warehouse, "hcp")
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("1", "y")])
    with pytest.raises(WarehouseError, match="1 rows have a key that came before"):
        warehouse.publish(publication(load((file,), LoadMode.MERGE)))
    assert warehouse.query("SELECT count(*) FROM hcp") == [(0,)]


def test_an_error_does_not_tell_a_cell_value(warehouse: DuckdbWarehouse, tmp_path: Path) -> None:
    ready(warehouse, "hcp")
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("CREATE UNIQUE INDEX once ON hcp (city)")
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "secret"), ("2", "secret")])
    with pytest.raises(WarehouseError) as refused:
        warehouse.publish(publication(load((file,))))
    assert "secret" not in refused.value.message
    assert refused.value.hint
    with pytest.raises(WarehouseError) as refused:
        warehouse.query("SELECT CAST('secret' AS INTEGER)")
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("statement", ["DELETE FROM ingestkit_fence RETURNING *", "DROP TABLE ingestkit_fence"])
def test_a_query_cannot_write(warehouse: DuckdbWarehouse, statement: str) -> None:
    warehouse.check()
    warehouse.fence((fence("hcp"),))
    with pytest.raises(WarehouseError):
        warehouse.query(statement)
    assert warehouse.fences(PIPELINE) == {"hcp": fence("hcp")}


@pytest.mark.parametrize("content", [b"", b"id,name\n" * 10_000])
def test_a_file_that_is_no_database_is_named(warehouse: DuckdbWarehouse, content: bytes) -> None:
    warehouse.path.parent.mkdir()
    warehouse.path.write_bytes(content)
    with pytest.raises(WarehouseError, match="not a DuckDB file") as refused:
        warehouse.check()
    assert str(warehouse.path) in refused.value.message
    assert warehouse.path.read_bytes() == content


def test_a_damaged_file_is_named(warehouse: DuckdbWarehouse) -> None:
    warehouse.check()
    whole = warehouse.path.read_bytes()
    warehouse.path.write_bytes(whole[:9000])
    with pytest.raises(WarehouseError, match="cut short"):
        warehouse.fences(PIPELINE)
    warehouse.path.write_bytes(bytes(20) + whole[20:])
    with pytest.raises(WarehouseError, match=r"damaged|not a DuckDB file"):
        warehouse.fences(PIPELINE)


def test_a_file_of_a_newer_duckdb_is_named(warehouse: DuckdbWarehouse) -> None:
    warehouse.check()
    whole = bytearray(warehouse.path.read_bytes())
    whole[12:20] = (9999).to_bytes(8, "little")
    whole[:8] = checksum(bytes(whole[8:4096])).to_bytes(8, "little")
    warehouse.path.write_bytes(whole)
    with pytest.raises(WarehouseError, match="newer DuckDB wrote it"):
        warehouse.check()


def checksum(block: bytes) -> int:
    """DuckDB's checksum of a block whose length divides by eight."""
    result = 5381
    for at in range(0, len(block), 8):
        result ^= int.from_bytes(block[at : at + 8], "little") * 0xBF58476D1CE4E5B9 % (1 << 64)
    return result


def test_a_folder_in_place_of_the_file_is_named(warehouse: DuckdbWarehouse) -> None:
    warehouse.path.mkdir(parents=True)
    with pytest.raises(WarehouseError, match="directory"):
        warehouse.check()


def test_a_file_in_place_of_the_folder_is_named(warehouse: DuckdbWarehouse) -> None:
    warehouse.path.parent.write_text("")
    with pytest.raises(WarehouseError, match=str(warehouse.path)):
        warehouse.check()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_written_is_named(warehouse: DuckdbWarehouse) -> None:
    warehouse.check()
    warehouse.path.chmod(0o400)
    with pytest.raises(WarehouseError, match="must be able to write"):
        warehouse.check()


@pytest.mark.parametrize(("rows", "limit"), [(400_000, 1_500_000), (10, 100)], ids=["in the rows", "in the log"])
def test_a_file_that_cannot_grow_is_named_and_keeps_what_it_had(
    warehouse: DuckdbWarehouse, tmp_path: Path, rows: int, limit: int
) -> None:
    ready(warehouse, "hcp")
    file = write_valid(tmp_path / "a.parquet", PERSON, [(str(number), str(number * 7)) for number in range(rows)])
    script = f"""
        import resource, signal
        from pathlib import Path
        from ingestkit.errors import WarehouseError
        from ingestkit.pipeline import SystemClock
        from ingestkit.ports import ValidFile
        from ingestkit.warehouses.duckdb import DuckdbWarehouse
        from tests.contracts.warehouse import load, publication

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        path, scratch = Path({str(warehouse.path)!r}), Path({str(warehouse.scratch)!r})
        warehouse = DuckdbWarehouse(path, "main", 10.0, "300MiB", 2, SystemClock(), None, scratch)
        file = ValidFile(Path({str(file.path)!r}), {file.source_file!r}, {file.file_id!r}, {file.rows})
        try:
            warehouse.publish(publication(load((file,))))
        except WarehouseError as error:
            print(error.message)
    """
    seen = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert str(warehouse.path) in seen.stdout
    assert "may not grow further" in seen.stdout
    assert warehouse.query("SELECT count(*) FROM hcp") == [(0,)]
    assert warehouse.receipts(PIPELINE) == ()
    warehouse.publish(publication(load((file,))))
    assert warehouse.query("SELECT count(*) FROM hcp") == [(rows,)]


def test_a_conflict_that_does_not_end_is_told(
    warehouse: DuckdbWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    ready(warehouse, "hcp")
    file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
    other = warehouse._connect(warehouse.path)
    other.begin()
    other.execute("UPDATE ingestkit_fence SET token = 9")
    with pytest.raises(WarehouseError, match="in conflict with another transaction") as told:
        warehouse.publish(publication(load((file,))))
    assert told.value.transient
    assert clock.naps == 50

    def end(nap: int) -> None:
        if nap == 52:
            other.rollback()

    clock.at_nap = end
    warehouse.publish(publication(load((file,))))
    assert clock.naps == 52
    other.close()
