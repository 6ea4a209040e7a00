"""What every warehouse must do: inherited by each adapter's tests, which give the fixtures and the blocking hook."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestkit import steps
from ingestkit.errors import Fenced, GateClosed, PlanAgain, WarehouseError
from ingestkit.model import Counts, Fence, Intent, LoadMode, Receipt
from ingestkit.ports import (
    Bounds,
    Load,
    Publication,
    Rejects,
    Said,
    TargetColumn,
    ValidFile,
    Wanted,
    Warehouse,
    many_tables,
)
from ingestkit.ports import ManyTables as TakesMany
from ingestkit.stages.validate_file import REJECTS
from ingestkit.stages.validate_keys import LOSERS

Rows = Iterable[tuple[Any, ...]]

PIPELINE = "opendata"
STATE = "state-1"
LINEAGE = ("_batch", "_run_id", "_source_file", "_record_no")
PERSON = (TargetColumn("id", "string"), TargetColumn("city", "string"))
VISIT = (TargetColumn("id", "string"), TargetColumn("at", "timestamp"), TargetColumn("on", "date"))
WITHOUT_WINDOW = [mode for mode in LoadMode if mode is not LoadMode.WINDOW]
"""Modes that any columns will do for."""
ARROW: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "local_timestamp": pa.timestamp("us"),
    "json": pa.string(),
    "decimal(10,2)": pa.decimal128(10, 2),
    "decimal(12,2)": pa.decimal128(12, 2),
    "decimal(21,2)": pa.decimal128(21, 2),
    "decimal(38,10)": pa.decimal128(38, 10),
}


class Judge:
    """Keeps what it is asked about, and refuses the models it is told to refuse."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.seen: dict[str, tuple[Counts, dict[str, int]]] = {}

    def __call__(self, model: str, counts: Counts, facts: Mapping[str, int]) -> None:
        self.seen[model] = (counts, dict(facts))
        if model in self.refused:
            raise GateClosed(f"{model} is refused")


def write_valid(path: Path, columns: tuple[TargetColumn, ...], rows: Rows, *, file_id: str = "f1") -> ValidFile:
    """A valid artifact: the contract's columns and `_record_no`, counted from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(one.name, ARROW[one.type]) for one in columns] + [("_record_no", pa.int64())])
    numbered = [(*row, number) for number, row in enumerate(rows, start=1)]
    arrays = [pa.array([row[i] for row in numbered], field.type) for i, field in enumerate(schema)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
    return ValidFile(path, f"drop/{path.stem}.csv", file_id, len(numbered))


def write_losers(path: Path, losers: Iterable[tuple[str, int]]) -> Path:
    schema = pa.schema([("file_id", pa.string()), ("record_no", pa.int64())])
    rows = [{"file_id": file_id, "record_no": number} for file_id, number in losers]
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def write_rejects(path: Path, records: Iterable[tuple[int, bytes | None, Iterable[str]]]) -> Path:
    """Records of drop/a.csv by number, with their bytes and the codes of what they broke; as validate leaves them."""
    rows = [
        {
            "file_id": "f1",
            "path": "drop/a.csv",
            "record": number,
            "line": number + 1,
            "raw": raw,
            "errors": [{"column": "city", "code": code, "message": f"is {code}", "value": "v"} for code in codes],
        }
        for number, raw, codes in records
    ]
    pq.write_table(pa.Table.from_pylist(rows, REJECTS), path)
    return path


def fence(model: str, *, table: str | None = None, token: int = 0, state_id: str = STATE) -> Fence:
    return Fence(PIPELINE, model, state_id, token, table or model)


def intent(model: str, mode: LoadMode, generation: int = 1, digest: str = "d1") -> Intent:
    return Intent(model, generation, digest, "s1", mode)


def load(
    files: tuple[ValidFile, ...],
    mode: LoadMode = LoadMode.REPLACE,
    *,
    model: str = "hcp",
    generation: int = 1,
    digest: str = "d1",
    losers: Path | None = None,
    newer: Said | None = None,
    previous: Said | None = None,
) -> Load:
    meant = intent(model, mode, generation, digest)
    made = Load(meant, model, PERSON, ("id",), files, losers)
    return replace(made, newer=newer or Said(), previous=previous or Said())


def of_many(token: int = 0, state_id: str = STATE) -> Fence:
    return Fence(PIPELINE, "*", state_id, token, many_tables(PIPELINE))


def part(name: str, files: tuple[ValidFile, ...], mode: LoadMode, *removed: ValidFile, generation: int = 1) -> Load:
    """One table of a model of many."""
    made = Load(intent("*", mode, generation), name, PERSON, ("id",), files, None)
    return replace(made, part=name, removed=removed)


def publication(*loads: Load, batch: str = "b1", token: int = 1, judge: Judge | None = None) -> Publication:
    return Publication(PIPELINE, batch, f"{PIPELINE}.{batch}.1", STATE, token, loads, judge or Judge())


def ready(warehouse: Warehouse, *models: str) -> None:
    """Fences and tables of the models, as check and load make them."""
    warehouse.check()
    warehouse.fence(tuple(fence(model) for model in models))
    for model in models:
        warehouse.evolve(model, PERSON, LINEAGE)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def visits(files: tuple[ValidFile, ...], bounds: Bounds | None, generation: int = 1) -> Load:
    made = Load(intent("visit", LoadMode.WINDOW, generation), "visit", VISIT, (), files, None)
    return replace(made, bounds=bounds)


def ready_for_visits(warehouse: Warehouse) -> None:
    warehouse.check()
    warehouse.fence((fence("visit"),))
    warehouse.evolve("visit", VISIT, LINEAGE)


def hours(*several: int) -> list[tuple[str, datetime, date]]:
    """Visits at these hours since the day began."""
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    times = [(hour, begin + timedelta(hours=hour)) for hour in several]
    return [(str(hour), at, at.date()) for hour, at in times]


DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in range(1, 5)]
FIRST_DAY, SECOND_DAY = Bounds("at", DAYS[0], DAYS[1]), Bounds("at", DAYS[1], DAYS[2])


class WarehouseContract:
    """Subclasses give `warehouse`, `second` (another session of its database), and what a vendor does its own way."""

    case_matters = False
    """Whether tables whose names differ in case alone are two."""

    @pytest.fixture
    def warehouse(self) -> Warehouse:
        raise NotImplementedError

    @pytest.fixture
    def second(self) -> Warehouse:
        raise NotImplementedError

    def wait_until_blocked(self) -> None:
        """Come back once the second session waits for the first one's transaction."""
        raise NotImplementedError

    def qualified(self, table: str) -> str:
        """The table's name in a statement."""
        raise NotImplementedError

    def column(self, name: str) -> str:
        """A column's name in a statement."""
        return quoted(name)

    def tree(self, text: str) -> str:
        """What a value of type json comes out as."""
        return text

    def rows(self, warehouse: Warehouse, table: str = "hcp", columns: str = "id, city") -> list[tuple[Any, ...]]:
        return sorted(warehouse.query(f"SELECT {columns} FROM {self.qualified(table)}"))

    def test_a_checked_warehouse_has_no_fences_and_no_receipts(self, warehouse: Warehouse) -> None:
        warehouse.check()
        assert warehouse.present()
        assert warehouse.fences(PIPELINE) == {}
        assert warehouse.receipts(PIPELINE) == ()

    def test_check_again_keeps_what_is_there(self, warehouse: Warehouse, second: Warehouse) -> None:
        warehouse.check()
        warehouse.fence((fence("hcp", token=4),))
        second.check()
        assert second.fences(PIPELINE) == {"hcp": fence("hcp", token=4)}

    def test_a_fence_that_stands_is_not_touched_by_inserting(self, warehouse: Warehouse) -> None:
        warehouse.check()
        warehouse.fence((fence("hcp", token=4),))
        warehouse.fence((fence("hcp", token=9, state_id="other"), fence("hco")))
        assert warehouse.fences(PIPELINE) == {"hco": fence("hco"), "hcp": fence("hcp", token=4)}

    def test_adopting_overwrites_state_and_token(self, warehouse: Warehouse) -> None:
        warehouse.check()
        warehouse.fence((fence("hcp", token=4),))
        warehouse.fence((fence("hcp", token=9, state_id="other"),), adopt=True)
        assert warehouse.fences(PIPELINE) == {"hcp": fence("hcp", token=9, state_id="other")}

    def test_a_table_has_one_owner(self, warehouse: Warehouse) -> None:
        warehouse.check()
        assert warehouse.table_owner("people") is None
        warehouse.fence((fence("hcp", table="people"),))
        assert warehouse.table_owner("people") == (PIPELINE, "hcp")
        with pytest.raises(WarehouseError, match=r"people belongs to opendata\.hcp"):
            warehouse.fence((Fence("other", "persons", STATE, 0, "people"),))
        assert warehouse.fences("other") == {}

    def test_a_table_has_one_owner_however_its_name_is_spelled(self, warehouse: Warehouse, second: Warehouse) -> None:
        warehouse.check()
        warehouse.fence((fence("hcp", table="people"),))
        another = (Fence("other", "persons", STATE, 0, "People"),)
        if self.case_matters:
            assert second.table_owner("People") is None
            second.fence(another)
            assert second.table_owner("People") == ("other", "persons")
            assert second.table_owner("people") == (PIPELINE, "hcp")
            return
        assert second.table_owner("PEOPLE") == (PIPELINE, "hcp")
        with pytest.raises(WarehouseError, match=r"table People belongs to opendata\.hcp"):
            second.fence(another)
        assert second.fences("other") == {}

    def test_publishing_raises_the_fence(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),)), token=7))
        assert warehouse.fences(PIPELINE)["hcp"].token == 7

    def test_an_owner_with_an_older_token_is_fenced_off(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        stale = write_valid(tmp_path / "b.parquet", PERSON, [("2", "y")])
        warehouse.publish(publication(load((first,)), token=7))
        with pytest.raises(Fenced, match="token 7"):
            warehouse.publish(publication(load((stale,)), batch="b2", token=6))
        assert self.rows(warehouse) == [("1", "x")]
        assert warehouse.fences(PIPELINE)["hcp"].token == 7

    def test_another_state_is_fenced_off(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        with pytest.raises(Fenced, match="another state"):
            warehouse.publish(replace(publication(load((file,))), state_id="other"))
        assert self.rows(warehouse) == []

    def test_a_model_without_fence_row_is_fenced_off(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        warehouse.evolve("hco", PERSON, LINEAGE)
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        with pytest.raises(Fenced, match="no fence row"):
            warehouse.publish(publication(load((file,)), load((file,), model="hco")))
        assert warehouse.fences(PIPELINE)["hcp"].token == 0
        assert self.rows(warehouse) == []

    def test_a_table_its_fence_row_does_not_name_is_not_published_into(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready(warehouse, "hcp", "hco")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        with pytest.raises(WarehouseError, match="names hcp"):
            warehouse.publish(publication(replace(load((file,)), table="hco")))
        assert self.rows(warehouse, "hco") == []

    def test_tables_that_do_not_exist_are_named(self, warehouse: Warehouse) -> None:
        ready(warehouse, "hcp")
        assert warehouse.missing(("hcp", "hco")) == {"hco"}

    def test_receipts_of_a_table_that_is_gone_are_removed_for_its_model_alone(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready(warehouse, "hco", "hcp")
        files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "Basel")]),)
        warehouse.publish(publication(load(files), load(files, model="hco")))
        warehouse.void(fence("hcp", token=2))
        assert [one.model for one in warehouse.receipts(PIPELINE)] == ["hco"]
        assert warehouse.fences(PIPELINE)["hcp"].token == 2

    def test_an_owner_with_an_older_token_removes_no_receipt(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "Basel")]),)
        warehouse.publish(publication(load(files), token=5))
        with pytest.raises(Fenced):
            warehouse.void(fence("hcp", token=4))
        assert len(warehouse.receipts(PIPELINE)) == 1

    def test_an_earlier_generation_that_is_gone_leaves_an_unknown_number_behind(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready(warehouse, "hcp")
        files = (write_valid(tmp_path / "a.parquet", PERSON, [("1", "Basel")]),)
        gone = replace(load(files, LoadMode.MERGE), previous=None)
        assert warehouse.publish(publication(gone))["hcp"].counts.left_behind is None

    def test_the_receipt_says_what_was_published(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        began = datetime.now(UTC)
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        stand = warehouse.publish(publication(load((file,)), token=3))
        counts = Counts(staged=2, loaded=2, deleted=0, target=2)
        assert stand["hcp"].at >= began
        expected = Receipt(
            PIPELINE, "hcp", "b1", 1, "d1", "s1", LoadMode.REPLACE, f"{PIPELINE}.b1.1", 3, counts, stand["hcp"].at
        )
        assert stand == {"hcp": expected}
        assert warehouse.receipts(PIPELINE) == (expected,)
        assert warehouse.receipts("other") == ()

    def test_the_same_intent_again_writes_nothing(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        stood = warehouse.publish(publication(load((file,)), token=3))
        other = write_valid(tmp_path / "b.parquet", PERSON, [("9", "z")])
        judge = Judge()
        again = replace(publication(load((other,)), token=4, judge=judge), run_id="another")
        assert warehouse.publish(again) == stood
        assert self.rows(warehouse) == [("1", "x")]
        assert judge.seen == {}
        assert warehouse.fences(PIPELINE)["hcp"].token == 4

    @pytest.mark.parametrize("generation", [1, 2])
    def test_a_generation_not_below_the_intended_one_is_planned_again(
        self, warehouse: Warehouse, tmp_path: Path, generation: int
    ) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        other = write_valid(tmp_path / "b.parquet", PERSON, [("9", "z")])
        stood = warehouse.publish(publication(load((file,), generation=2)))
        with pytest.raises(PlanAgain, match="generation 2"):
            warehouse.publish(publication(load((other,), generation=generation, digest="d2"), token=5))
        assert self.rows(warehouse) == [("1", "x")]
        assert warehouse.receipts(PIPELINE) == (stood["hcp"],)
        assert warehouse.fences(PIPELINE)["hcp"].token == 1

    def test_each_batch_has_exactly_one_receipt(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        for generation in (1, 2, 3):
            warehouse.publish(publication(load((file,), generation=generation)))
        warehouse.publish(publication(load((file,)), batch="b2"))
        found = [(one.batch, one.generation) for one in warehouse.receipts(PIPELINE)]
        assert found == [("b1", 3), ("b2", 1)]

    def test_replace_puts_the_rows_in_place_of_all(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        old = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y"), ("3", "z")])
        new = write_valid(tmp_path / "b.parquet", PERSON, [("2", "Y"), ("4", None)])
        warehouse.publish(publication(load((old,))))
        judge = Judge()
        stand = warehouse.publish(publication(load((new,)), batch="b2", judge=judge))
        assert stand["hcp"].counts == Counts(staged=2, loaded=2, deleted=3, target=2)
        assert judge.seen["hcp"][1] == {"key_nulls": 0, "key_duplicates": 0, "expected_target": 2}
        assert warehouse.query(f"SELECT id, city FROM {self.qualified('hcp')} ORDER BY id") == [("2", "Y"), ("4", None)]

    def test_append_adds_and_takes_back_only_its_own_batch(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        second = write_valid(tmp_path / "b.parquet", PERSON, [("1", "x")])
        mended = write_valid(tmp_path / "c.parquet", PERSON, [("5", "q"), ("6", "r"), ("7", "s")])
        warehouse.publish(publication(load((first,), LoadMode.APPEND)))
        warehouse.publish(publication(load((second,), LoadMode.APPEND), batch="b2"))
        assert self.rows(warehouse) == [("1", "x"), ("1", "x"), ("2", "y")]
        judge = Judge()
        stand = warehouse.publish(publication(load((mended,), LoadMode.APPEND, generation=2), judge=judge))
        assert self.rows(warehouse) == [("1", "x"), ("5", "q"), ("6", "r"), ("7", "s")]
        assert stand["hcp"].counts == Counts(staged=3, loaded=3, deleted=2, target=4)
        assert judge.seen["hcp"][1]["expected_target"] == 4

    def test_merge_updates_known_keys_and_adds_new_ones(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        second = write_valid(tmp_path / "b.parquet", PERSON, [("2", "Y"), ("3", "z")])
        warehouse.publish(publication(load((first,), LoadMode.MERGE)))
        judge = Judge()
        stand = warehouse.publish(publication(load((second,), LoadMode.MERGE), batch="b2", judge=judge))
        assert self.rows(warehouse, columns="id, city, _batch, _record_no") == [
            ("1", "x", "b1", 1),
            ("2", "Y", "b2", 1),
            ("3", "z", "b2", 2),
        ]
        assert stand["hcp"].counts == Counts(staged=2, loaded=2, deleted=0, superseded=0, left_behind=0, target=3)
        assert judge.seen["hcp"][1]["expected_target"] == 3

    def test_rows_that_say_so_remove_their_key(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        first = [("1", "x"), ("2", "y"), ("\\.", "z"), ("", "w"), ("5", None)]
        second = [("\\.", "gone"), ("1", "gone"), ("", "gone"), ("6", "gone"), ("5", None), ("7", "new")]
        warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, first),), LoadMode.MERGE)))
        file = write_valid(tmp_path / "b.parquet", PERSON, second)
        gone = replace(load((file,), LoadMode.MERGE), deletes={"city": ("gone",)})
        stand = warehouse.publish(publication(gone, batch="b2"))
        assert self.rows(warehouse, columns="id, city, _batch") == [
            ("2", "y", "b1"),
            ("5", None, "b2"),
            ("7", "new", "b2"),
        ]
        counted = Counts(staged=6, loaded=2, deleted=3, superseded=0, left_behind=0, deletes=4, target=3)
        assert stand["hcp"].counts == counted

    def test_an_old_merge_leaves_what_a_newer_batch_said(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        second = write_valid(tmp_path / "b.parquet", PERSON, [("2", "Y"), ("3", "z")])
        mended = write_valid(tmp_path / "c.parquet", PERSON, [("1", "X"), ("2", "no"), ("3", "no"), ("4", "new")])
        warehouse.publish(publication(load((first,), LoadMode.MERGE)))
        warehouse.publish(publication(load((second,), LoadMode.MERGE), batch="b2"))
        late = load((mended,), LoadMode.MERGE, generation=2, newer=Said((second,)), previous=Said((first,)))
        stand = warehouse.publish(publication(late))
        assert self.rows(warehouse) == [("1", "X"), ("2", "Y"), ("3", "z"), ("4", "new")]
        assert stand["hcp"].counts == Counts(staged=4, loaded=2, deleted=0, superseded=2, left_behind=0, target=4)

    def test_a_full_load_goes_under_what_newer_changes_have_said(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "1.parquet", PERSON, [("1", "x"), ("2", "x"), ("3", "x")])
        warehouse.publish(publication(load((first,))))
        changes = write_valid(tmp_path / "2.parquet", PERSON, [("2", "y"), ("5", "y"), ("3", "gone")])
        merged = replace(load((changes,), LoadMode.MERGE), deletes={"city": ("gone",)})
        warehouse.publish(publication(merged, batch="b2"))
        again = write_valid(
            tmp_path / "3.parquet", PERSON, [("1", "z"), ("2", "z"), ("3", "z"), ("4", "z"), ("6", "gone")]
        )
        judge = Judge()
        full = load((again,), generation=2, newer=Said((changes,)))
        full = replace(full, deletes={"city": ("gone",)})
        warehouse.publish(publication(full, token=2, judge=judge))
        assert self.rows(warehouse) == [("1", "z"), ("2", "y"), ("4", "z"), ("5", "y")]
        counts, facts = judge.seen["hcp"]
        assert (counts.staged, counts.loaded, counts.superseded, counts.deletes, counts.deleted) == (5, 2, 2, 1, 1)
        assert (facts["expected_target"], counts.target) == (4, 4)
        # Nothing of its own is left of it, and what the changes said stays.
        none = load((), generation=3, newer=Said((changes,)))
        warehouse.publish(publication(none, token=3))
        assert self.rows(warehouse) == [("2", "y"), ("5", "y")]

    def test_a_record_that_a_newer_batch_left_out_says_nothing_of_its_key(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")], file_id="f1")
        second = write_valid(tmp_path / "b.parquet", PERSON, [("2", "Y"), ("3", "no")], file_id="f2")
        losers = write_losers(tmp_path / "losers.parquet", [("f2", 2), ("f1", 1)])
        mended = write_valid(tmp_path / "c.parquet", PERSON, [("2", "no"), ("3", "mine")], file_id="f3")
        warehouse.publish(publication(load((first,), LoadMode.MERGE)))
        warehouse.publish(publication(load((second,), LoadMode.MERGE, losers=losers), batch="b2"))
        said = Said((second,), (losers,))
        late = load((mended,), LoadMode.MERGE, generation=2, newer=said, previous=Said((first,), (losers,)))
        stand = warehouse.publish(publication(late))
        assert self.rows(warehouse) == [("1", "x"), ("2", "Y"), ("3", "mine")]
        assert (stand["hcp"].counts.superseded, stand["hcp"].counts.left_behind) == (1, 0)

    def test_keys_that_only_the_earlier_generation_had_stay_and_are_counted(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y"), ("3", "z")])
        newer = write_valid(tmp_path / "b.parquet", PERSON, [("3", "Z")])
        mended = write_valid(tmp_path / "c.parquet", PERSON, [("1", "X")])
        warehouse.publish(publication(load((first,), LoadMode.MERGE)))
        warehouse.publish(publication(load((newer,), LoadMode.MERGE), batch="b2"))
        redone = load((mended,), LoadMode.MERGE, generation=2, newer=Said((newer,)), previous=Said((first,)))
        stand = warehouse.publish(publication(redone))
        assert self.rows(warehouse) == [("1", "X"), ("2", "y"), ("3", "Z")]
        assert (stand["hcp"].counts.left_behind, stand["hcp"].counts.superseded) == (1, 0)

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_publishing_a_batch_once_more_changes_no_row(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode
    ) -> None:
        ready(warehouse, "hcp")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        second = write_valid(tmp_path / "b.parquet", PERSON, [("3", "z")])
        warehouse.publish(publication(load((first,), mode)))
        warehouse.publish(publication(load((second,), mode), batch="b2"))
        everything = "id, city, _batch, _run_id, _source_file, _record_no"
        stood = self.rows(warehouse, columns=everything)
        warehouse.publish(publication(load((second,), mode, generation=2), batch="b2", token=2))
        assert self.rows(warehouse, columns=everything) == stood

    @pytest.mark.parametrize(("mode", "left"), [(LoadMode.REPLACE, 0), (LoadMode.APPEND, 1), (LoadMode.MERGE, 1)])
    def test_a_load_without_rows_is_a_load(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode, left: int
    ) -> None:
        ready(warehouse, "hcp")
        warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),), mode)))
        warehouse.publish(publication(load((write_valid(tmp_path / "b.parquet", PERSON, []),), mode), batch="b2"))
        stand = warehouse.publish(publication(load((), mode), batch="b3"))
        assert (stand["hcp"].counts.staged, stand["hcp"].counts.target) == (0, left)

    def test_a_window_takes_the_place_of_all_rows_that_lie_in_it(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_visits(warehouse)
        first = write_valid(tmp_path / "a.parquet", VISIT, hours(0, 12, 23))
        second = write_valid(tmp_path / "b.parquet", VISIT, hours(24, 47))
        warehouse.publish(publication(visits((first,), FIRST_DAY)))
        warehouse.publish(publication(visits((second,), SECOND_DAY), batch="b2"))
        mended = write_valid(tmp_path / "c.parquet", VISIT, hours(1, 2))
        judge = Judge()
        stand = warehouse.publish(publication(visits((mended,), FIRST_DAY, generation=2), judge=judge))
        assert self.rows(warehouse, "visit", "id, _batch") == [("1", "b1"), ("2", "b1"), ("24", "b2"), ("47", "b2")]
        assert stand["visit"].counts == Counts(staged=2, loaded=2, deleted=3, target=4)
        assert judge.seen["visit"][1]["expected_target"] == 4

    def test_a_window_cut_otherwise_leaves_no_row_of_another_batch_behind(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready_for_visits(warehouse)
        wide = Bounds("at", DAYS[0], DAYS[2])
        everything = write_valid(tmp_path / "a.parquet", VISIT, hours(3, 30))
        warehouse.publish(publication(visits((everything,), wide), batch="month"))
        again = write_valid(tmp_path / "b.parquet", VISIT, hours(30))
        warehouse.publish(publication(visits((again,), SECOND_DAY), batch="b2"))
        assert self.rows(warehouse, "visit", "id, _batch") == [("3", "month"), ("30", "b2")]

    def test_days_are_windows_too(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_visits(warehouse)
        of_two_days = write_valid(tmp_path / "a.parquet", VISIT, hours(3, 30))
        warehouse.publish(publication(visits((of_two_days,), Bounds("on", date(2026, 3, 1), date(2026, 3, 3)))))
        nothing = write_valid(tmp_path / "b.parquet", VISIT, [])
        second_day = Bounds("on", date(2026, 3, 2), date(2026, 3, 3))
        stand = warehouse.publish(publication(visits((nothing,), second_day), batch="b2"))
        assert self.rows(warehouse, "visit", "id") == [("3",)]
        assert stand["visit"].counts.deleted == 1

    def test_publishing_a_window_once_more_changes_no_row(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_visits(warehouse)
        file = write_valid(tmp_path / "a.parquet", VISIT, hours(0, 12, 23))
        everything = "id, _batch, _run_id, _source_file, _record_no"
        warehouse.publish(publication(visits((file,), FIRST_DAY)))
        stood = self.rows(warehouse, "visit", everything)
        warehouse.publish(publication(visits((file,), FIRST_DAY, generation=2), token=2))
        assert self.rows(warehouse, "visit", everything) == stood

    @pytest.mark.parametrize("rows", [hours(12, 24), [("none", None, None)]])
    def test_a_row_outside_its_window_is_not_published(
        self, warehouse: Warehouse, tmp_path: Path, rows: list[tuple[Any, ...]]
    ) -> None:
        ready_for_visits(warehouse)
        file = write_valid(tmp_path / "a.parquet", VISIT, rows)
        with pytest.raises(WarehouseError, match="1 rows lie outside of their window"):
            warehouse.publish(publication(visits((file,), FIRST_DAY)))
        assert self.rows(warehouse, "visit", "id") == []

    def test_records_left_out_by_number_are_not_published(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        one = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")], file_id="f1")
        two = write_valid(tmp_path / "b.parquet", PERSON, [("2", "late"), ("3", "z")], file_id="f2")
        losers = write_losers(tmp_path / "losers.parquet", [("f2", 1)])
        warehouse.publish(publication(load((one, two), losers=losers)))
        assert self.rows(warehouse, columns="id, city, _source_file, _record_no") == [
            ("1", "x", "drop/a.csv", 1),
            ("2", "y", "drop/a.csv", 2),
            ("3", "z", "drop/b.csv", 2),
        ]

    def with_rejects(self, warehouse: Warehouse, beside: Rejects, made: Load) -> Load:
        warehouse.evolve(beside.table, beside.columns, beside.lineage)
        return replace(made, rejects=beside)

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_rejects_go_into_a_table_beside_the_target_batch_by_batch(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode
    ) -> None:
        ready(warehouse, "hcp")
        found = write_rejects(
            tmp_path / "r.parquet", [(2, b"2,\xc3\xa9", ["type", "required"]), (3, b"3,\xe9\0", ["enum"])]
        )
        losers = tmp_path / "l.parquet"
        error = {"column": "id", "code": "duplicate", "message": "came before", "value": "1"}
        lost = {"file_id": "f1", "path": "drop/p.csv", "record_no": 2, "line": 4, "errors": [error]}
        pq.write_table(pa.Table.from_pylist([lost], LOSERS), losers)
        valid = (write_valid(tmp_path / "p.parquet", PERSON, [("1", "x"), ("1", "y")]),)
        beside = Rejects("hcp__rejects", (found,), losers, raw=True)
        warehouse.publish(publication(self.with_rejects(warehouse, beside, load(valid, mode, losers=losers))))
        columns = [
            self.column(one)
            for one in ("_batch", "_run_id", "_source_file", "_record_no", "line", "column", "code", "message", "raw")
        ]
        shown = self.rows(warehouse, "hcp__rejects", ", ".join(columns))
        run = f"{PIPELINE}.b1.1"
        assert shown == [
            ("b1", run, "drop/a.csv", 2, 3, "city", "required", "is required", "2,é"),
            ("b1", run, "drop/a.csv", 2, 3, "city", "type", "is type", "2,é"),
            ("b1", run, "drop/a.csv", 3, 4, "city", "enum", "is enum", r"3,\xE9\x00"),
            ("b1", run, "drop/p.csv", 2, 4, "id", "duplicate", "came before", None),
        ]
        assert self.rows(warehouse) == [("1", "x")]
        one = write_rejects(tmp_path / "s.parquet", [(9, b"9,", ["type"])])
        later = Rejects("hcp__rejects", (one,), raw=True)
        warehouse.publish(publication(replace(load(valid, mode, losers=losers), rejects=later), batch="b2"))
        keys = ", ".join(columns[:1] + columns[3:4])
        assert self.rows(warehouse, "hcp__rejects", keys) == [("b1", 2), ("b1", 2), ("b1", 2), ("b1", 3), ("b2", 9)]
        # Done again, the batch says of itself what it says now: here, nothing.
        again = replace(load(valid, mode, generation=2, losers=losers), rejects=Rejects("hcp__rejects", raw=True))
        warehouse.publish(publication(again, batch="b2"))
        assert {batch for batch, _ in self.rows(warehouse, "hcp__rejects", keys)} == {"b1"}

    def test_a_rejected_record_that_is_too_long_for_a_text_is_cut_and_keeps_no_row_out(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready(warehouse, "hcp")
        found = write_rejects(
            tmp_path / "r.parquet",
            [(2, b"x" * 17_000_000, ["type"]), (3, b"\xe9" * 300_000, ["type"]), (4, b"y" * 1_000_000, ["type"])],
        )
        valid = (write_valid(tmp_path / "p.parquet", PERSON, [("1", "x")]),)
        made = self.with_rejects(warehouse, Rejects("hcp__rejects", (found,), raw=True), load(valid))
        warehouse.publish(publication(made))
        assert self.rows(warehouse) == [("1", "x")]
        raw, number = self.column("raw"), self.column("_record_no")
        shown = self.rows(warehouse, "hcp__rejects", f"{number}, length({raw}), left({raw}, 5), right({raw}, 2)")
        assert shown == [
            (2, 1_000_001, "xxxxx", "x…"),
            (3, 1_000_001, "\\xE9\\", "9…"),
            (4, 1_000_000, "yyyyy", "yy"),
        ]

    def test_rejects_are_taken_back_with_the_rows(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        found = write_rejects(tmp_path / "r.parquet", [(2, b"2,x", ["type"])])
        valid = (write_valid(tmp_path / "p.parquet", PERSON, [("1", "x")]),)
        made = self.with_rejects(warehouse, Rejects("hcp__rejects", (found,)), load(valid))
        with pytest.raises(GateClosed):
            warehouse.publish(publication(made, judge=Judge("hcp")))
        assert self.rows(warehouse, "hcp__rejects", self.column("code")) == []
        warehouse.publish(publication(made))
        assert self.rows(warehouse, "hcp__rejects", self.column("code")) == [("type",)]

    def test_lineage_that_is_not_wanted_is_not_written(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.check()
        warehouse.fence((fence("hcp"),))
        warehouse.evolve("hcp", PERSON, ("_batch",))
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        warehouse.publish(publication(replace(load((file,)), lineage=("_batch",))))
        assert self.rows(warehouse, columns="*") == [("1", "x", "b1")]

    def test_columns_the_contract_no_longer_has_are_kept_and_left_empty(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        warehouse.check()
        warehouse.fence((fence("hcp"),))
        warehouse.evolve("hcp", (*PERSON, TargetColumn("gone", "string")), LINEAGE)
        warehouse.publish(publication(load((write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")]),))))
        assert self.rows(warehouse, columns="id, city, gone") == [("1", "x", None)]

    def test_repeated_and_missing_keys_are_told_to_the_judge(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        rows = [("1", "x"), ("1", "y"), ("1", "z"), (None, "q"), (None, "r"), ("2", "s")]
        judge = Judge("hcp")
        with pytest.raises(GateClosed):
            warehouse.publish(
                publication(load((write_valid(tmp_path / "a.parquet", PERSON, rows),), LoadMode.MERGE), judge=judge)
            )
        facts = judge.seen["hcp"][1]
        assert (facts["key_nulls"], facts["key_duplicates"]) == (2, 2)
        assert self.rows(warehouse) == []

    def test_a_refusal_takes_everything_back(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hco", "hcp")
        old = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        new = write_valid(tmp_path / "b.parquet", PERSON, [("2", "y")])
        stood = warehouse.publish(publication(load((old,)), load((old,), model="hco")))
        with pytest.raises(GateClosed):
            warehouse.publish(
                publication(load((new,)), load((new,), model="hco"), batch="b2", token=5, judge=Judge("hcp"))
            )
        assert self.rows(warehouse) == self.rows(warehouse, "hco") == [("1", "x")]
        assert warehouse.receipts(PIPELINE) == (stood["hco"], stood["hcp"])
        assert {one.token for one in warehouse.fences(PIPELINE).values()} == {1}

    def test_a_failure_in_the_second_model_takes_back_the_first(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hco", "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        gone = ValidFile(tmp_path / "gone.parquet", "drop/gone.csv", "f9", 1)
        with pytest.raises(WarehouseError):
            warehouse.publish(publication(load((file,), model="hco"), load((gone,))))
        assert self.rows(warehouse, "hco") == []
        assert warehouse.receipts(PIPELINE) == ()
        assert {one.token for one in warehouse.fences(PIPELINE).values()} == {0}

    def test_models_are_fenced_and_published_in_name_order(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hco", "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        judge = Judge()
        warehouse.publish(publication(load((file,)), load((file,), model="hco"), judge=judge))
        assert list(judge.seen) == ["hco", "hcp"]

    @pytest.mark.parametrize("step", ["load.fenced", "load.rows_written", "load.before_commit"])
    def test_an_end_before_commit_leaves_nothing(
        self, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])

        def end(reached: str) -> None:
            if reached == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(steps, "reached", end)
            with pytest.raises(KeyboardInterrupt):
                warehouse.publish(publication(load((file,))))
        assert self.rows(warehouse) == []
        assert warehouse.receipts(PIPELINE) == ()
        warehouse.publish(publication(load((file,))))
        assert self.rows(warehouse) == [("1", "x")]

    def test_an_end_after_commit_leaves_the_receipt(
        self, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])

        def end(reached: str) -> None:
            if reached == "load.committed":
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(steps, "reached", end)
            with pytest.raises(KeyboardInterrupt):
                warehouse.publish(publication(load((file,), LoadMode.APPEND)))
        stand = warehouse.publish(publication(load((file,), LoadMode.APPEND), token=2))
        assert stand["hcp"].token == 1
        assert self.rows(warehouse) == [("1", "x")]

    def test_a_second_owner_waits_for_the_first_and_then_finds_its_receipt(
        self, warehouse: Warehouse, second: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready(warehouse, "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        written, go_on = threading.Event(), threading.Event()
        outcome: dict[str, Mapping[str, Receipt]] = {}

        def pause(reached: str) -> None:
            if reached == "load.rows_written" and threading.current_thread().name == "first":
                written.set()
                assert go_on.wait(60)

        def publish(by: Warehouse, token: int) -> None:
            outcome[threading.current_thread().name] = by.publish(
                publication(load((file,), LoadMode.APPEND), token=token)
            )

        monkeypatch.setattr(steps, "reached", pause)
        first_thread = threading.Thread(target=publish, args=(warehouse, 1), name="first")
        second_thread = threading.Thread(target=publish, args=(second, 2), name="second")
        first_thread.start()
        assert written.wait(60)
        second_thread.start()
        self.wait_until_blocked()
        assert second_thread.is_alive()
        go_on.set()
        first_thread.join(60)
        second_thread.join(60)
        assert outcome["first"] == outcome["second"]
        assert outcome["second"]["hcp"].token == 1
        assert self.rows(warehouse) == [("1", "x"), ("2", "y")]
        late = publication(load((file,), LoadMode.APPEND), batch="b2", token=1)
        with pytest.raises(Fenced):
            warehouse.publish(late)
        assert self.rows(warehouse) == [("1", "x"), ("2", "y")]

    def test_two_models_are_published_side_by_side(
        self, warehouse: Warehouse, second: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready(warehouse, "hco", "hcp")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        both = threading.Barrier(2, timeout=60)
        failures: list[BaseException] = []

        def meet(reached: str) -> None:
            if reached == "load.rows_written":
                both.wait()

        def publish(by: Warehouse, model: str, token: int) -> None:
            try:
                by.publish(publication(load((file,), model=model), token=token))
            except (WarehouseError, threading.BrokenBarrierError) as error:
                failures.append(error)

        monkeypatch.setattr(steps, "reached", meet)
        threads = [
            threading.Thread(target=publish, args=(warehouse, "hco", 1)),
            threading.Thread(target=publish, args=(second, "hcp", 2)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert failures == []
        assert self.rows(warehouse) == self.rows(warehouse, "hco") == [("1", "x")]
        assert {model: one.token for model, one in warehouse.fences(PIPELINE).items()} == {"hco": 1, "hcp": 2}

    def test_a_table_is_made_once(self, warehouse: Warehouse) -> None:
        warehouse.check()
        assert warehouse.evolve("hcp", PERSON, LINEAGE) != ()
        assert warehouse.evolve("hcp", PERSON, LINEAGE) == ()
        assert self.rows(warehouse, columns=f"id, city, {', '.join(LINEAGE)}") == []

    def test_what_evolve_would_run_can_be_asked_for_and_changes_nothing(self, warehouse: Warehouse) -> None:
        warehouse.check()
        [made] = warehouse.planned("hcp", PERSON, LINEAGE)
        assert warehouse.missing(("hcp",)) == {"hcp"}
        assert warehouse.evolve("hcp", PERSON, LINEAGE) == (made,)
        assert warehouse.planned("hcp", PERSON, LINEAGE) == ()
        more = (*PERSON, TargetColumn("age", "integer"))
        planned = warehouse.planned("hcp", more, LINEAGE)
        assert planned == warehouse.planned("hcp", more, LINEAGE)
        assert warehouse.evolve("hcp", more, LINEAGE) == planned

    def test_the_newest_value_of_a_column_is_told(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        columns = (*PERSON, TargetColumn("At", "timestamp"))
        warehouse.evolve("hcp", columns, LINEAGE)
        assert warehouse.newest("hcp", "At") is None
        times = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, 12, tzinfo=UTC), None]
        rows = [(str(number), "x", at) for number, at in enumerate(times)]
        file = write_valid(tmp_path / "a.parquet", columns, rows)
        warehouse.publish(publication(replace(load((file,)), columns=columns)))
        assert warehouse.newest("hcp", "At") == times[1]

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_columns_that_some_files_have_are_null_for_the_others(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode
    ) -> None:
        ready(warehouse, "hcp")
        columns = (*PERSON, TargetColumn("note", "string"), TargetColumn("gone", "string"))
        warehouse.evolve("hcp", columns, LINEAGE)
        one = write_valid(tmp_path / "1.parquet", columns[:3], [("1", "Bern", "x")], file_id="f1")
        other = write_valid(tmp_path / "2.parquet", PERSON, [("2", "Ulm")], file_id="f2")
        evolved = replace(load((one, other), mode), columns=columns, evolved=("note", "gone"))
        warehouse.publish(publication(evolved))
        query = f"SELECT id, city, note, gone FROM {self.qualified('hcp')} ORDER BY id"
        assert warehouse.query(query) == [("1", "Bern", "x", None), ("2", "Ulm", None, None)]

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_files_that_spell_an_added_column_otherwise_fill_it(
        self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode
    ) -> None:
        ready(warehouse, "hcp")
        columns = (*PERSON, TargetColumn("Note", "string"))
        warehouse.evolve("hcp", columns, LINEAGE)
        said = write_valid(tmp_path / "1.parquet", (*PERSON, TargetColumn("note", "string")), [("1", "Bern", "x")])
        warehouse.publish(publication(replace(load((said,), mode), columns=columns, evolved=("Note",))))
        assert warehouse.query(f'SELECT id, "Note" FROM {self.qualified("hcp")}') == [("1", "x")]

    def test_a_new_column_is_added_and_is_empty_in_old_rows(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready(warehouse, "hcp")
        old = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        warehouse.publish(publication(load((old,), LoadMode.APPEND)))
        wider = (*PERSON, TargetColumn("age", "integer"))
        assert len(warehouse.evolve("hcp", wider, LINEAGE)) == 1
        new = write_valid(tmp_path / "b.parquet", wider, [("2", "y", 40)])
        warehouse.publish(publication(replace(load((new,), LoadMode.APPEND), columns=wider), batch="b2"))
        query = f"SELECT id, age FROM {self.qualified('hcp')} ORDER BY id"
        assert warehouse.query(query) == [("1", None), ("2", 40)]

    @pytest.mark.parametrize(
        ("narrow", "wide", "value"),
        [
            ("decimal(10,2)", "decimal(12,2)", Decimal("12345678.90")),
            ("integer", "decimal(21,2)", 9223372036854775807),
        ],
    )
    def test_a_column_is_widened_and_its_values_stay(
        self, warehouse: Warehouse, tmp_path: Path, narrow: str, wide: str, value: Any
    ) -> None:
        columns = (TargetColumn("id", "string"), TargetColumn("amount", narrow))
        warehouse.check()
        warehouse.fence((fence("hcp"),))
        warehouse.evolve("hcp", columns, LINEAGE)
        file = write_valid(tmp_path / "a.parquet", columns, [("1", value)])
        warehouse.publish(publication(replace(load((file,)), columns=columns)))
        wider = (columns[0], TargetColumn("amount", wide))
        assert len(warehouse.evolve("hcp", wider, LINEAGE)) == 1
        assert warehouse.evolve("hcp", wider, LINEAGE) == ()
        assert self.rows(warehouse, columns="amount") == [(Decimal(value),)]

    @pytest.mark.parametrize(
        ("has", "wanted"),
        [
            ("decimal(12,2)", "decimal(10,2)"),
            ("decimal(12,2)", "decimal(12,4)"),
            ("string", "integer"),
            ("integer", "string"),
            ("integer", "float"),
            ("integer", "decimal(10,2)"),
            ("timestamp", "local_timestamp"),
        ],
    )
    def test_a_change_that_could_lose_values_is_refused(self, warehouse: Warehouse, has: str, wanted: str) -> None:
        warehouse.check()
        warehouse.evolve("hcp", (TargetColumn("id", "string"), TargetColumn("what", has)), LINEAGE)
        with pytest.raises(WarehouseError, match=r"hcp\.what") as refused:
            warehouse.evolve("hcp", (TargetColumn("id", "string"), TargetColumn("what", wanted)), LINEAGE)
        assert refused.value.hint
        assert self.rows(warehouse, columns="what") == []

    @pytest.mark.parametrize("mode", WITHOUT_WINDOW)
    def test_values_come_out_as_they_went_in(self, warehouse: Warehouse, tmp_path: Path, mode: LoadMode) -> None:
        columns = (
            TargetColumn("id", "string"),
            TargetColumn("text", "string"),
            TargetColumn("whole", "integer"),
            TargetColumn("part", "float"),
            TargetColumn("exact", "decimal(38,10)"),
            TargetColumn("yes", "boolean"),
            TargetColumn("day", "date"),
            TargetColumn("instant", "timestamp"),
            TargetColumn("wall", "local_timestamp"),
            TargetColumn("tree", "json"),
        )
        first = (
            "000123456789012345",
            "é\r\n\"'\\ 表 %s,\n\\.\n\\N",
            -9223372036854775808,
            0.1,
            Decimal("1234567890123456789012345678.0123456789"),
            True,
            date(1, 1, 1),
            datetime(2026, 11, 1, 5, 59, 59, 999999, tzinfo=UTC),
            datetime.fromisoformat("1969-12-31T23:59:59.000001"),
            '{"b": [1.50, "\\u0000", null], "a": 1,\n "b": 1e400}',
        )
        nothing = ("2", "", None, None, None, None, None, None, None, None)
        warehouse.check()
        warehouse.fence((fence("hcp"),))
        warehouse.evolve("hcp", columns, LINEAGE)
        file = write_valid(tmp_path / "a.parquet", columns, [first, nothing])
        warehouse.publish(publication(replace(load((file,), mode), columns=columns)))
        shown = ", ".join(self.column(column.name) for column in columns)
        found = warehouse.query(f"SELECT {shown} FROM {self.qualified('hcp')} ORDER BY id")
        assert found == [(*first[:-1], self.tree(str(first[-1]))), nothing]

    def test_names_are_taken_as_they_are(self, warehouse: Warehouse, tmp_path: Path) -> None:
        columns = (
            TargetColumn("340B_eligible__v", "string"),
            TargetColumn("select", "string"),
            TargetColumn('say "hi"', "string"),
            TargetColumn("a.b c", "string"),
            TargetColumn("filename", "string"),
            TargetColumn("target", "string"),
            TargetColumn("n", "string"),
        )
        key = ("340B_eligible__v", 'say "hi"')
        table = 'order "by" 1'
        warehouse.check()
        warehouse.fence((fence("hcp", table=table),))
        warehouse.evolve(table, columns, LINEAGE)
        row = ("1", "2", "3", "4", "5", "6", "7")
        for number, mode in enumerate(WITHOUT_WINDOW, start=1):
            folder = tmp_path / "it's [a] * d?" / "n=8"
            file = write_valid(folder / f"x'{number}[1].parquet", columns, [row])
            work = replace(load((file,), mode, generation=number), columns=columns, table=table, key=key)
            if mode is LoadMode.MERGE:
                work = replace(work, newer=Said((write_valid(folder / "n.parquet", columns, []),)))
            warehouse.publish(publication(work, batch="it's"))
        shown = ", ".join(self.column(column.name) for column in columns)
        assert set(self.rows(warehouse, table, shown)) == {row}
        assert {one for (one,) in self.rows(warehouse, table, "_batch")} == {"it's"}


class ManyTables:
    """What a warehouse promises that takes models of many tables; for subclasses of the contract."""

    def shown(self, warehouse: Warehouse, table: str) -> list[tuple[Any, ...]]:
        assert isinstance(self, WarehouseContract)
        return self.rows(warehouse, table)

    def test_all_tables_of_a_model_have_one_receipt(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product", "user")
        products = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        users = write_valid(tmp_path / "b.parquet", PERSON, [("1", "u")])
        judge = Judge()
        full = [part("product", (products,), LoadMode.REPLACE), part("user", (users,), LoadMode.REPLACE)]
        stand = warehouse.publish(publication(*full, judge=judge, token=3))
        assert {name: counts.loaded for name, (counts, _) in judge.seen.items()} == {"product": 2, "user": 1}
        assert self.shown(warehouse, "product") == [("1", "x"), ("2", "y")]
        assert self.shown(warehouse, "user") == [("1", "u")]
        [receipt] = warehouse.receipts(PIPELINE)
        assert stand == {"*": receipt}
        assert receipt.counts == Counts(staged=3, loaded=3, deleted=0)
        assert {model: one.token for model, one in warehouse.fences(PIPELINE).items()} == {
            "*": 3,
            "product": 0,
            "user": 0,
        }
        again = warehouse.publish(publication(*full, judge=(second := Judge()), token=4))
        assert (again, second.seen) == ({"*": receipt}, {})

    def test_a_refusal_of_one_table_takes_back_all_of_its_model(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product", "user")
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        loads = [part(name, (file,), LoadMode.MERGE) for name in ("product", "user")]
        with pytest.raises(GateClosed):
            warehouse.publish(publication(*loads, judge=Judge("user")))
        assert [self.shown(warehouse, name) for name in ("product", "user")] == [[], []]
        assert warehouse.receipts(PIPELINE) == ()

    def test_removed_keys_go_before_rows_come(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y"), ("3", "z")])
        warehouse.publish(publication(part("product", (first,), LoadMode.REPLACE)))
        said = write_valid(tmp_path / "b.parquet", PERSON, [("2", "came again"), ("4", "new")])
        gone = write_valid(tmp_path / "c.parquet", PERSON[:1], [("1",), ("2",), ("9",)])
        judge = Judge()
        changes = part("product", (said,), LoadMode.MERGE, gone)
        stand = warehouse.publish(publication(changes, batch="b2", judge=judge))
        assert self.shown(warehouse, "product") == [("2", "came again"), ("3", "z"), ("4", "new")]
        counts, facts = judge.seen["product"]
        assert (counts.staged, counts.deletes, counts.deleted, counts.loaded) == (5, 3, 2, 2)
        assert (facts["expected_target"], counts.target, facts["key_nulls"]) == (3, 3, 0)
        assert stand["*"].counts.deleted == 2

    def test_keys_may_go_where_no_row_comes(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x"), ("2", "y")])
        warehouse.publish(publication(part("product", (first,), LoadMode.REPLACE)))
        gone = write_valid(tmp_path / "c.parquet", PERSON[:1], [("1",)])
        warehouse.publish(publication(part("product", (), LoadMode.MERGE, gone), batch="b2"))
        assert self.shown(warehouse, "product") == [("2", "y")]

    def test_a_removed_key_without_a_value_is_told_to_the_judge(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product")
        gone = write_valid(tmp_path / "c.parquet", PERSON[:1], [("1",), (None,)])
        judge = Judge("product")
        with pytest.raises(GateClosed):
            warehouse.publish(publication(part("product", (), LoadMode.MERGE, gone), judge=judge))
        assert judge.seen["product"][1]["key_nulls"] == 1

    def test_a_full_load_of_many_tables_ends_what_newer_changes_have_said(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        ready_for_many(warehouse, "product")
        first = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        second = write_valid(tmp_path / "b.parquet", PERSON, [("2", "y")])
        warehouse.publish(publication(part("product", (first,), LoadMode.REPLACE)))
        warehouse.publish(publication(part("product", (second,), LoadMode.MERGE), batch="b2"))
        again = part("product", (first,), LoadMode.REPLACE, generation=2)
        warehouse.publish(publication(again))
        assert self.shown(warehouse, "product") == [("1", "x")]
        assert [(one.batch, one.generation) for one in warehouse.receipts(PIPELINE)] == [("b1", 2)]

    def test_columns_that_are_gone_are_dropped_under_the_fence(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product")
        assert isinstance(warehouse, TakesMany)
        file = write_valid(tmp_path / "a.parquet", PERSON, [("1", "x")])
        warehouse.publish(publication(part("product", (file,), LoadMode.REPLACE), token=4))
        with pytest.raises(Fenced):
            warehouse.drop(of_many(3), "product", ["city"])
        with pytest.raises(Fenced):
            warehouse.drop(of_many(5, "another"), "product", ["city"])
        assert self.shown(warehouse, "product") == [("1", "x")]
        [statement] = warehouse.drop(of_many(5), "product", ["city", "never"])
        assert "city" in statement
        assert warehouse.drop(of_many(5), "product", ["city"]) == ()
        with pytest.raises(WarehouseError):
            self.shown(warehouse, "product")
        assert "city" in str(warehouse.planned("product", PERSON, LINEAGE))

    def test_a_table_that_is_gone_is_nobodys(self, warehouse: Warehouse, tmp_path: Path) -> None:
        ready_for_many(warehouse, "product", "user")
        assert isinstance(warehouse, TakesMany)
        with pytest.raises(Fenced):
            warehouse.drop(of_many(1, "another"), "product")
        assert warehouse.table_owner("product") == (PIPELINE, "product")
        assert len(warehouse.drop(of_many(1), "product")) == 1
        assert warehouse.drop(of_many(1), "product") == ()
        assert warehouse.missing(("product", "user")) == {"product"}
        assert warehouse.table_owner("product") is None
        assert set(warehouse.fences(PIPELINE)) == {"*", "user"}

    def test_many_tables_are_made_and_changed_at_once(self, warehouse: Warehouse) -> None:
        warehouse.check()
        assert isinstance(warehouse, TakesMany)
        wanted = [Wanted("product", PERSON, LINEAGE), Wanted("3d_model__c", PERSON[:1], LINEAGE)]
        made = warehouse.evolve_all(wanted)
        assert {table: len(statements) for table, statements in made.items()} == {"product": 1, "3d_model__c": 1}
        assert warehouse.evolve_all(wanted) == {}
        more = [wanted[0], Wanted("3d_model__c", (*PERSON, TargetColumn("n", "integer")), LINEAGE)]
        changed = warehouse.evolve_all(more)
        assert {table: len(statements) for table, statements in changed.items()} == {"3d_model__c": 2}
        assert warehouse.evolve_all(more) == {}
        with pytest.raises(WarehouseError):
            warehouse.evolve_all([Wanted("product", (TargetColumn("city", "integer"),), LINEAGE)])

    def test_two_pipelines_have_models_of_many_tables(self, warehouse: Warehouse) -> None:
        ready_for_many(warehouse)
        warehouse.fence((replace(of_many(), pipeline="other", table=many_tables("other")),))
        assert set(warehouse.fences("other")) == {"*"}


def ready_for_many(warehouse: Warehouse, *tables: str) -> None:
    warehouse.check()
    warehouse.fence((of_many(), *(fence(table) for table in tables)))
    for table in tables:
        warehouse.evolve(table, PERSON, LINEAGE)
