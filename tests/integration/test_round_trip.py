"""Values come out of the target exactly as their files say them, whatever the contract has to do to read them."""

import csv
import io
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.world import World

COLUMNS = {
    "id": {"required": True},
    "whole": {"type": "integer"},
    "exact": {"type": "decimal(38,10)"},
    "money": {"type": "decimal(12,2)", "decimal_point": ",", "thousands": "."},
    "real": {"type": "float"},
    "truth": {"type": "boolean", "true_words": ["ja"], "false_words": ["nein"]},
    "day": {"type": "date", "format": ["%d.%m.%Y", "%Y%m%d"]},
    "at": {"type": "timestamp"},
    "here": {"type": "local_timestamp"},
    "doc": {"type": "json"},
    "word": {"type": "string"},
}
WORDS = ["", "plain", " spaced ", 'quo"te', "line\nend", "comma,", "é", "\u0661", "\U0001f600", "'", "NULL", "0012"]
DOCUMENTS = ["{}", '{ "a" : [1.10, 2e5] }', '"x"', "null", "[ ]", '{"ü":"\\u00e9"}', "123456789012345678901234567890"]


def drawn(lot: random.Random, number: int) -> tuple[list[str], tuple[Any, ...]]:
    """A row as it is written, and as it must come out."""
    whole = lot.choice([0, -1, 2**63 - 1, -(2**63), lot.randint(-(10**12), 10**12)])
    exact = Decimal(lot.randint(-(10**37), 10**37)).scaleb(-10)
    cents = lot.randint(-(10**9), 10**9)
    money = Decimal(cents).scaleb(-2)
    real = lot.choice([0.0, -0.0, 1e-300, 1.7976931348623157e308, lot.uniform(-1e9, 1e9)])
    truth = lot.random() < 0.5
    day = date(lot.randint(1, 9999), lot.randint(1, 12), lot.randint(1, 28))
    offset = timezone(timedelta(minutes=lot.choice([0, 60, -480, 345, 840])))
    at = datetime(lot.randint(2, 9998), lot.randint(1, 12), 1, 23, 59, 59, lot.randint(0, 999_999), tzinfo=offset)
    document, word = lot.choice(DOCUMENTS), lot.choice(WORDS)
    written = [
        str(number),
        str(whole),
        format(exact, "f"),
        f"{money:,.2f}".translate(str.maketrans(",.", ".,")),
        repr(real),
        lot.choice(["Ja", "ja"]) if truth else "NEIN",
        lot.choice([f"{day:%d.%m.}{day.year:04d}", f"{day.year:04d}{day:%m%d}"]),
        at.isoformat(lot.choice("T "), "microseconds"),
        at.replace(tzinfo=None).isoformat("T", "microseconds"),
        document,
        word,
    ]
    instant = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    here = at.replace(tzinfo=None)
    return written, (str(number), whole, exact, money, real, truth, day, instant, here, document, word or None)


def text(rows: Sequence[Sequence[str]]) -> str:
    into = io.StringIO()
    writer = csv.writer(into)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return into.getvalue()


@pytest.mark.parametrize("load", ["replace", "append", "merge"])
def test_values_round_trip_exactly(world: World, load: str) -> None:
    lot = random.Random(load)
    key = {} if load == "append" else {"key": ["id"]}
    world.set_up({"models": {"v": {"load": load, "columns": COLUMNS, **key}}})
    rows = [drawn(lot, number) for number in range(400)]
    # Blocks in which all is written alike are read by another way than mixed ones.
    same = ["7", "1.5", "1,5", "1.5", "ja", "20240101", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00", "1", "x"]
    alike = [[str(number), *same] for number in range(1000, 1010)]
    world.drop({"20260101/v.csv": text([written for written, _ in rows]), "20260101/v_2.csv": text(alike)})
    world.does("run")
    asked = 'id, whole, exact, money, real, truth, day, epoch_us("at"), here, doc::VARCHAR, word'
    found = {row[0]: row for row in world.target(f"SELECT {asked} FROM v")}
    assert len(found) == 410
    for _, wanted in rows:
        seen = found[wanted[0]]
        assert [seen[at] for at in range(len(wanted)) if wanted[at] is not None or at == 10] == [
            one for at, one in enumerate(wanted) if one is not None or at == 10
        ]
    [kind] = world.target("SELECT data_type FROM duckdb_columns() WHERE table_name = 'v' AND column_name = 'doc'")
    assert kind == ("JSON",)
    assert found["1003"][1:7] == (7, Decimal("1.5"), Decimal("1.5"), 1.5, True, date(2024, 1, 1))


def test_what_is_normalised_is_counted_and_the_raw_file_stays(world: World) -> None:
    world.set_up({"models.a.columns.n": {"normalise": ["trim", "upper"]}, "models.a.nulls": ["n/a"]})
    content = "id,n\n1, ab \n2,CD\n3,n/a\n"
    world.drop({"20260101/a.csv": content})
    world.does("run")
    assert world.table("a", "id", "n") == [("1", "AB"), ("2", "CD"), ("3", "N/A")]
    details = world.stages("p.20260101.1")["validate", "a"]["details"]
    assert details["normalised"] == {"n": {"trim": 1, "upper": 2}}
    [raw] = (world.root / "lake/raw/p/a").rglob("*a.csv")
    assert raw.read_text() == content


def test_every_failing_column_of_a_reject_is_named(world: World) -> None:
    columns = {
        "id": {"required": True, "pattern": "[a-z]+"},
        "n": {"type": "integer", "max": 9},
        "e": {"enum": ["x", "y"]},
        "d": {"type": "date"},
    }
    wide = {"gate.max_reject_pct": 100, "validation.max_file_reject_pct": 100}
    world.set_up(wide | {"models": {"m": {"load": "append", "columns": columns}}})
    world.drop({"20260101/m.csv": "id,n,e,d\nok,1,x,2024-01-01\nNO,12,z,2024-1-1\n,,,\n"})
    world.does("run")
    found = world.does("quarantine", "show")["rows"]
    told = [{(error["column"], error["code"], error["value"]) for error in one["errors"]} for one in found]
    assert told[0] == {
        ("id", "pattern", "NO"),
        ("n", "max", "12"),
        ("e", "enum", "z"),
        ("d", "type", "2024-1-1"),
    }
    assert told[1] == {("id", "required", None)}
    assert all(error["message"] for one in found for error in one["errors"])
