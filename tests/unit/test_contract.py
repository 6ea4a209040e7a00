"""Contracts: what each type takes and refuses, and that nothing taken is altered."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingestkit.contract import compile_contract
from ingestkit.errors import ConfigError
from ingestkit.settings import Model
from ingestkit.stages.validate_engine import Engine
from tests.unit.test_validate import context


def typed(folder: Path, column: dict[str, Any], *values: str | None) -> list[Any]:
    """Each value as converted, or the codes of its errors."""
    engine = Engine(context(folder), compile_contract("m", Model.model_validate({"columns": {"c": column}})))
    try:
        engine.check()
        text = pa.table({"c": pa.array(values, pa.string())})
        found, valid = engine.typed(text)
        errors = engine.errors(text).to_pylist()
    finally:
        engine.close()
    good = [True] * len(values) if valid is None else valid.to_pylist()
    assert [not each for each in errors] == good
    return [
        value if ok else [one["code"] for one in each]
        for value, ok, each in zip(found.column("c").to_pylist(), good, errors, strict=True)
    ]


def refused(count: int) -> list[list[str]]:
    return [["type"]] * count


TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("integer", {"0": 0, "-7": -7, "+7": 7, "007": 7, str(2**63 - 1): 2**63 - 1, str(-(2**63)): -(2**63)}),
    (
        "decimal(10,2)",
        {"1.5": Decimal("1.50"), "-0.01": Decimal("-0.01"), ".5": Decimal("0.50"), "1.990": Decimal("1.99")},
    ),
    ("decimal(38,0)", {"9" * 38: Decimal("9" * 38), "1.0": Decimal(1)}),
    ("float", {"1e3": 1000.0, "-.5": -0.5, "1.": 1.0, "0.1": 0.1}),
    (
        "boolean",
        {
            "true": True,
            "T": True,
            "1": True,
            "Yes": True,
            "y": True,
            "FALSE": False,
            "f": False,
            "0": False,
            "no": False,
            "N": False,
        },
    ),
    ("date", {"2024-02-29": date(2024, 2, 29), "0001-01-01": date(1, 1, 1), "9999-12-31": date(9999, 12, 31)}),
    (
        "timestamp",
        {
            "2024-01-01T10:00:00Z": datetime(2024, 1, 1, 10, tzinfo=UTC),
            "2024-01-01 10:00:00.123456+02:00": datetime(2024, 1, 1, 8, 0, 0, 123456, tzinfo=UTC),
            "2024-01-01T10:00:00.120000000-0830": datetime(2024, 1, 1, 18, 30, 0, 120000, tzinfo=UTC),
            "2024-01-01T10:00Z": datetime(2024, 1, 1, 10, tzinfo=UTC),
        },
    ),
    ("local_timestamp", {"2024-01-01T10:00:00.5": datetime.fromisoformat("2024-01-01T10:00:00.5")}),
    ("string", {" padded ": " padded ", "00123": "00123", "NA": "NA", "é\n": "é\n"}),
]

REFUSED: list[tuple[str, list[str]]] = [
    ("integer", [" 5", "5 ", "1e3", "0x1F", "1_000", "1.5", "1.0", "--1", "", str(2**63), "٣"]),
    ("decimal(10,2)", ["1.999", "1e2", "1,5", " 1", "123456789.00", "NaN", "."]),
    ("decimal(38,0)", ["1" + "0" * 38, "0.5"]),
    ("float", ["1e400", "nan", "inf", "1,5", " 1", "."]),
    ("boolean", ["on", "2", "truth", " true"]),
    ("date", ["2026-1-5", "2026/01/05", "epoch", "infinity", "2026-02-29", "2026-01-05T00:00:00", "0000-01-01"]),
    (
        "timestamp",
        [
            "2024-01-01T10:00:00",
            "2024-01-01",
            "2024-01-01T10:00:00.1234567Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T23:59:60Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T10:00:00 UTC",
        ],
    ),
    ("local_timestamp", ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00+02:00", "2024-01-01"]),
]


@pytest.mark.parametrize(("kind", "values"), TAKEN, ids=[kind for kind, _ in TAKEN])
def test_a_type_takes_what_it_holds_exactly(tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    assert typed(tmp_path, {"type": kind}, *values, None) == [*values.values(), None]


@pytest.mark.parametrize(("kind", "values"), REFUSED, ids=[kind for kind, _ in REFUSED])
def test_a_type_refuses_what_a_cast_would_alter(tmp_path: Path, kind: str, values: list[str]) -> None:
    assert typed(tmp_path, {"type": kind}, *values) == refused(len(values))


def rules() -> Iterator[tuple[dict[str, Any], list[tuple[str | None, Any]]]]:
    yield {"required": True}, [("x", "x"), (None, ["required"])]
    yield {"type": "integer", "required": True, "min": 1}, [("0", ["min"]), (None, ["required"]), ("x", ["type"])]
    yield {"pattern": r"\d{3}"}, [("123", "123"), ("1234", ["pattern"]), ("x123", ["pattern"]), (None, None)]
    yield {"min_length": 2, "max_length": 3}, [("éé", "éé"), ("é", ["length"]), ("éééé", ["length"])]
    yield {"type": "integer", "min": 1900, "max": 2100}, [("1900", 1900), ("1899", ["min"]), ("2101", ["max"])]
    yield {"type": "decimal(4,2)", "max": 9.99}, [("9.99", Decimal("9.99")), ("10", ["max"])]
    yield {"type": "date", "min": "2020-01-01"}, [("2020-01-01", date(2020, 1, 1)), ("2019-12-31", ["min"])]
    yield {"pattern": "a'b|it''s", "max_length": 3}, [("a'b", "a'b"), ("xxxx", ["pattern", "length"])]


@pytest.mark.parametrize(("column", "cases"), list(rules()))
def test_a_rule_judges_values_and_says_nothing_of_missing_ones(
    tmp_path: Path, column: dict[str, Any], cases: list[tuple[str | None, Any]]
) -> None:
    assert typed(tmp_path, column, *(value for value, _ in cases)) == [wanted for _, wanted in cases]


def test_a_time_without_offset_is_read_on_the_columns_own_clock(tmp_path: Path) -> None:
    column = {"type": "timestamp", "timezone": "America/New_York"}
    assert typed(
        tmp_path,
        column,
        "2024-01-01T10:00:00",
        "2024-07-01T10:00:00",
        "2024-07-01T10:00:00Z",
        "2024-03-10T02:30:00",
        "2024-11-03T01:30:00",
        "2024-11-03T02:30:00",
    ) == [
        datetime(2024, 1, 1, 15, tzinfo=UTC),
        datetime(2024, 7, 1, 14, tzinfo=UTC),
        datetime(2024, 7, 1, 10, tzinfo=UTC),
        ["type"],
        ["type"],
        datetime(2024, 11, 3, 7, 30, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"type": "integer", "min": "many"}, "column c: min 'many' is no integer"),
        ({"type": "boolean", "max": 1}, "column c: max 1.0 is no boolean"),
        ({"pattern": "(?=x)"}, "the contract cannot be compiled"),
        ({"type": "timestamp", "timezone": "Mars/Olympus"}, "cannot be compiled: .*Mars/Olympus"),
    ],
)
def test_a_contract_that_means_nothing_is_refused_before_any_file(
    tmp_path: Path, column: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        typed(tmp_path, column, "x")


def test_columns_with_any_name_compile(tmp_path: Path) -> None:
    columns = {'340B "x"': {"type": "integer", "required": True}, "select": {"pattern": "a"}, "it's": {"type": "date"}}
    engine = Engine(context(tmp_path), compile_contract("m", Model.model_validate({"columns": columns})))
    try:
        text = pa.table({'340B "x"': ["1", None], "select": ["a", "b"], "it's": ["2024-01-01", "x"]})
        errors = engine.errors(text).to_pylist()
    finally:
        engine.close()
    assert [[(one["column"], one["code"]) for one in each] for each in errors] == [
        [],
        [('340B "x"', "required"), ("select", "pattern"), ("it's", "type")],
    ]
