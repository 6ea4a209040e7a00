"""JSON lines and Parquet under the contract that texts have: values, positions, proof, drift and what is rejected."""

import datetime as dt
import decimal
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from ingestkit.model import ArtifactKind, FileStatus, Work
from ingestkit.pipeline import RunContext
from ingestkit.stages.validate import validate
from tests.unit.test_validate import context, land, of_kind, rule, table

LOCAL = dt.datetime.fromisoformat("2026-01-01T12:00:00")
ORDERS: dict[str, dict[str, Any]] = {
    "id": {"type": "integer"},
    "name": {"type": "string", "max_length": 9},
    "price": {"type": "decimal(30,20)"},
    "at": {"type": "timestamp"},
    "more": {"type": "json"},
}


def orders(folder: Path, columns: Any = None, *, run_id: str = "p.b.1", **model: Any) -> RunContext:
    settings = {"key": ["id"], "columns": ORDERS if columns is None else columns, **model}
    every = {"max_file_reject_pct": 100}
    return context(folder, run_id=run_id, model=settings, validation=every, gate={"max_reject_pct": 100})


def lines(*rows: Any) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def packed(columns: dict[str, Any]) -> bytes:
    into = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), into, write_page_checksum=True)
    return into.getvalue()


def valid_rows(ctx: RunContext, work: Work) -> list[dict[str, Any]]:
    return [row for one in of_kind(work, ArtifactKind.VALID) for row in table(ctx, one).to_pylist()]


def reject_rows(ctx: RunContext, work: Work) -> list[dict[str, Any]]:
    found = [one for one in of_kind(work, ArtifactKind.REJECTS) if one.file_id is not None]
    return [row for one in found for row in table(ctx, one).to_pylist()]


def codes(row: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["column"], one["code"]) for one in row["errors"]}


def drift(work: Work) -> set[tuple[str, str, str]]:
    return {(one.kind, one.column, one.action) for one in work.drift}


def test_lines_of_json_keep_every_digit_and_every_character(tmp_path: Path) -> None:
    ctx = orders(tmp_path)
    content = lines(
        r'{"id": 123456789012345678, "price": 1.10, "name": "a\"\u00e9\n", "at": "2026-01-01T01:00:00+01:00"}',
        '{"more": {"x": [1.10, "}"]}, "price": 0.12345678901234567890, "id": 2, "name": ""}',
        '{"id": "3", "name": 7, "price": null, "more": "text"}',
    )
    work = validate(ctx, "hcp", [land(ctx, "b/orders.jsonl", content)], ())
    rows = [{name: row[name] for name in ORDERS} for row in valid_rows(ctx, work)]
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    price = decimal.Decimal
    assert rows == [
        {"id": 123456789012345678, "name": 'a"é\n', "price": price("1.10"), "at": at, "more": None},
        {"id": 2, "name": "", "price": price("0.12345678901234567890"), "at": None, "more": '{"x": [1.10, "}"]}'},
        {"id": 3, "name": "7", "price": None, "at": None, "more": '"text"'},
    ]


def test_rejected_lines_of_json_keep_their_bytes_and_their_place(tmp_path: Path) -> None:
    ctx = orders(tmp_path)
    written = [
        '{"id": 1, "name": "good", "price": 1, "at": null, "more": null}',
        "",
        '{"id": 2, "name": {"a": 1}, "price": 1e3}',
        "not json",
        '{"id": 4, "id": 5}',
        r'{"id": 6, "name": "a\u0000b"}',
        '{"name": "nobody"}',
    ]
    content = "\n".join(written).encode() + b"\n" + b'{"id": 8, "name": "\xff"}\n' + b'{"id": 9, "name": "\0"}'
    work = validate(ctx, "hcp", [land(ctx, "b/orders.ndjson", content)], ())
    found = reject_rows(ctx, work)
    assert [(row["record"], row["line"], codes(row)) for row in found] == [
        (2, 3, {("name", "type"), ("price", "type")}),
        (3, 4, {("*", "json")}),
        (4, 5, {("*", "json")}),
        (5, 6, {("name", "nul")}),
        (6, 7, {("id", "required")}),
        (7, 8, {("*", "encoding")}),
        (8, 9, {("*", "nul")}),
    ]
    for row in found:
        assert content[row["byte_start"] :][: row["byte_length"]] == row["raw"]
    assert {one["column"]: one["value"] for one in found[0]["errors"]} == {"name": '{"a": 1}', "price": "1e3"}
    proof = work.details["proof"]
    assert (proof["lines"], proof["blank"], proof["valid_lines"], proof["rejected_lines"]) == (9, 1, 1, 7)


def test_packed_lines_of_json_and_those_without_an_ending_are_told_by_name_or_by_setting(tmp_path: Path) -> None:
    content = lines({"id": 1, "name": "a", "price": 1, "at": None, "more": None})
    ctx = orders(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/orders.JSONL.gz", gzip.compress(content))], ())
    assert work.counts.valid == 1
    ctx = orders(tmp_path, run_id="p.b.2", format="jsonl")
    assert validate(ctx, "hcp", [land(ctx, "b/orders.txt", content)], ()).counts.valid == 1


def test_a_key_in_no_contract_fails_the_file_is_left_out_or_is_added(tmp_path: Path) -> None:
    content = lines({"id": 1, "x": "new"}, {"id": 2, "x": [1]}, {"id": 3})
    ctx = orders(tmp_path, {"id": {"type": "integer"}})
    work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", content)], ())
    assert "'x' is in no contract" in rule(work, "whole_files").told
    assert drift(work) == {("extra", "x", "fail")}
    ctx = orders(tmp_path, {"id": {"type": "integer"}}, run_id="p.b.2", drift="ignore")
    work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", content)], ())
    assert (work.counts.valid, drift(work)) == (3, {("extra", "x", "left out")})
    ctx = orders(tmp_path, {"id": {"type": "integer"}}, run_id="p.b.3", drift="evolve")
    work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", content)], ())
    assert [row["x"] for row in valid_rows(ctx, work)] == ["new", "[1]", None]
    assert drift(work) == {("extra", "x", "added")}


def test_a_key_that_comes_after_the_first_lines_costs_its_line_or_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestkit.csvfile.BLOCK", 64)
    rows = [{"id": number} for number in range(50)]
    content = lines(*rows, {"id": 50, "x": 1}, {"id": 51, "name": "late"})
    columns = {"id": {"type": "integer"}, "name": {"type": "string"}}
    for number, policy in enumerate(("evolve", "ignore")):
        ctx = orders(tmp_path, columns, run_id=f"p.b.{number}", drift=policy)
        work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", content)], ())
        found = [(row["record"], codes(row)) for row in reject_rows(ctx, work)]
        assert found == ([(51, {("*", "columns")})] if policy == "evolve" else [])
        # The contract's own column was not missing: it came late.
        assert drift(work) == set()
        assert valid_rows(ctx, work)[-1]["name"] == "late"


def test_names_are_folded_as_the_header_setting_says_and_have_no_order(tmp_path: Path) -> None:
    ctx = orders(tmp_path, {"id": {}, "first_name": {}}, header={"case": "ignore", "spaces": "ignore"})
    content = lines({"First Name": "a", "ID": "1"}, {"id": "2", "first_name": "b"}, {"id": "3", "ID": "3"})
    work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", content)], ())
    assert [row["first_name"] for row in valid_rows(ctx, work)] == ["a", "b"]
    # Of two spellings in one object nobody can say which one is meant.
    assert [(row["record"], codes(row)) for row in reject_rows(ctx, work)] == [(3, {("*", "json")})]
    assert drift(work) == set()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b'[{"id":1},\n{"id":2}]\n', "no line that is a JSON object"),
        (b"{}\n", "'id' is missing"),
    ],
)
def test_a_file_without_a_line_that_is_an_object_fails_whole(tmp_path: Path, content: bytes, told: str) -> None:
    ctx = orders(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", content)], ())
    assert told in rule(work, "whole_files").told


def test_parquet_comes_to_the_contract_by_the_exact_text_of_each_value(tmp_path: Path) -> None:
    columns = {
        "id": {"type": "integer"},
        "price": {"type": "decimal(12,2)"},
        "wide": {"type": "decimal(38,1)"},
        "day": {"type": "date"},
        "at": {"type": "timestamp"},
        "fine": {"type": "timestamp"},
        "local": {"type": "local_timestamp"},
        "half": {"type": "float"},
        "single": {"type": "float"},
        "ok": {"type": "boolean"},
        "more": {"type": "json"},
        "word": {"type": "string"},
        "nothing": {"type": "string"},
    }
    ctx = orders(tmp_path, columns)
    utc = dt.UTC
    moment = dt.datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=utc)
    content = packed(
        {
            "id": pa.array([1], pa.uint16()),
            "price": pa.array([decimal.Decimal("1.10")], pa.decimal128(12, 2)),
            "wide": pa.array([decimal.Decimal("-1.5")], pa.decimal256(60, 1)),
            "day": pa.array([dt.date(2026, 2, 28)]),
            "at": pa.array([moment], pa.timestamp("us", tz="America/New_York")),
            "fine": pa.array([moment], pa.timestamp("ns", tz="Europe/Berlin")),
            "local": pa.array([LOCAL], pa.timestamp("ms")),
            "half": pa.array([0.1], pa.float64()),
            "single": pa.array([0.1], pa.float32()),
            "ok": pa.array([False]),
            "more": pa.array([{"a": [1, None]}]),
            "word": pa.array(["é"]).dictionary_encode(),
            "nothing": pa.array([None], pa.null()),
        }
    )
    work = validate(ctx, "hcp", [land(ctx, "b/o.parquet", content)], ())
    [row] = valid_rows(ctx, work)
    assert {name: row[name] for name in columns} == {
        "id": 1,
        "price": decimal.Decimal("1.10"),
        "wide": decimal.Decimal("-1.5"),
        "day": dt.date(2026, 2, 28),
        "at": moment,
        "fine": moment,
        "local": LOCAL,
        "half": 0.1,
        "single": 0.10000000149011612,
        "ok": False,
        "more": '{"a":[1,null]}',
        "word": "é",
        "nothing": None,
    }


def test_nothing_of_parquet_is_rounded_shifted_or_guessed(tmp_path: Path) -> None:
    columns = {
        "id": {"type": "integer"},
        "price": {"type": "decimal(12,2)"},
        "at": {"type": "timestamp"},
        "local": {"type": "local_timestamp"},
        "f": {"type": "float"},
        "word": {"type": "string"},
    }
    ctx = orders(tmp_path, columns)
    now = LOCAL
    content = packed(
        {
            "id": pa.array([1, 2, 3, 4, 5], pa.float64()),
            "price": pa.array([decimal.Decimal("1.999")] * 5, pa.decimal128(12, 3)),
            "at": pa.array([now] * 5),
            "local": pa.array([now] * 5, pa.timestamp("us", tz="UTC")),
            "f": pa.array([float("nan"), float("inf"), 1, 1, 1]),
            "word": pa.array([[1]] * 4 + [None], pa.list_(pa.int8())),
        }
    )
    work = validate(ctx, "hcp", [land(ctx, "b/o.parquet", content)], ())
    every = {(name, "type") for name in columns}
    found = reject_rows(ctx, work)
    assert [codes(row) for row in found] == [
        every,
        every,
        *[every - {("f", "type")}] * 2,
        every - {("f", "type"), ("word", "type")},
    ]
    assert json.loads(found[0]["raw"])["price"] == "1.999"
    assert {one["value"] for one in found[0]["errors"] if one["column"] == "word"} == {"[1]"}
    nanoseconds = packed(
        {"id": pa.array([1]), "at": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", tz="UTC"))}
    )
    ctx = orders(tmp_path, {"id": {"type": "integer"}, "at": {"type": "timestamp"}}, run_id="p.b.2")
    work = validate(ctx, "hcp", [land(ctx, "b/n.parquet", nanoseconds)], ())
    assert [codes(row) for row in reject_rows(ctx, work)] == [{("at", "type")}]


def test_records_of_parquet_are_numbered_and_proven_instead_of_lines(tmp_path: Path) -> None:
    ctx = orders(tmp_path, {"id": {"type": "integer", "min": 10}, "word": {"type": "string"}})
    count = 150_000
    ids = list(range(10, count + 10))
    for place in (0, 70_000, count - 1):
        ids[place] = -place
    content = packed({"word": pa.array(["a\nb"] * (count - 1) + ["\0"]), "id": pa.array(ids)})
    work = validate(ctx, "hcp", [land(ctx, "b/o.parquet", content)], ())
    found = reject_rows(ctx, work)
    assert [(row["record"], row["line"]) for row in found] == [(1, 1), (70_001, 70_001), (count, count)]
    assert codes(found[-1]) == {("id", "min"), ("word", "nul")}
    proof = work.details["proof"]
    assert (proof["lines"], proof["valid_lines"], proof["rejected_lines"]) == (count, count - 3, 3)
    numbers = pa.concat_tables(table(ctx, one) for one in of_kind(work, ArtifactKind.VALID)).column("_record_no")
    assert numbers.to_pylist() == [at + 1 for at in range(count) if at not in (0, 70_000, count - 1)]
    assert drift(work) == {("reordered", "*", "by name")}


@pytest.mark.parametrize("harm", ["cut", "flipped", "text"])
def test_a_damaged_parquet_file_fails_whole(tmp_path: Path, harm: str) -> None:
    ctx = orders(tmp_path, {"id": {"type": "integer"}})
    content = packed({"id": pa.array(range(1000))})
    half = len(content) // 4
    harmed = {
        "cut": content[:-100],
        "flipped": content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :],
        "text": b"id\n1\n",
    }[harm]
    work = validate(ctx, "hcp", [land(ctx, "b/o.parquet", harmed)], ())
    assert "is no whole Parquet file" in rule(work, "whole_files").told
    assert [one.status for one in work.files] == [FileStatus.QUARANTINED]


def test_bytes_in_parquet_are_no_text(tmp_path: Path) -> None:
    ctx = orders(tmp_path, {"id": {"type": "string"}})
    work = validate(ctx, "hcp", [land(ctx, "b/o.parquet", packed({"id": pa.array([b"\xff"])}))], ())
    assert "has bytes in column 'id'" in rule(work, "whole_files").told


def test_the_reader_of_lines_does_not_slip_where_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestkit.csvfile.BLOCK", 97)
    ctx = orders(tmp_path, {"id": {"type": "integer"}, "name": {"type": "string"}})
    rows = [{"id": number, "name": "x" * (number % 90)} for number in range(400)]
    work = validate(ctx, "hcp", [land(ctx, "b/o.jsonl", lines(*rows))], ())
    assert [{"id": row["id"], "name": row["name"]} for row in valid_rows(ctx, work)] == rows
