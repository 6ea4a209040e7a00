"""Contracts: what each type takes and refuses, and that nothing taken is altered."""

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from pydantic import ValidationError

from ingestkit.contract import compile_contract
from ingestkit.errors import ConfigError
from ingestkit.ports import Bounds
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


@pytest.mark.parametrize(
    "zone", ["Antarctica/Troll", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "Asia/Pyongyang"]
)
def test_a_local_time_is_taken_where_its_clock_shows_it_once_by_the_zone_database(tmp_path: Path, zone: str) -> None:
    clock = ZoneInfo(zone)
    hours = [datetime(1995, 1, 1, tzinfo=UTC) + timedelta(hours=6 * step) for step in range(30 * 1461)]
    turns = [
        now
        for now, then in itertools.pairwise(hours)
        if now.astimezone(clock).utcoffset() != then.astimezone(clock).utcoffset()
    ]
    shown = sorted(
        {
            (turn + timedelta(minutes=20 * step)).astimezone(clock).replace(tzinfo=None)
            for turn in turns[-6:]
            for step in range(-30, 40)
        }
        | {
            turn.astimezone(clock).replace(tzinfo=None) + timedelta(minutes=20 * step)
            for turn in turns[-6:]
            for step in range(-30, 40)
        }
    )
    found = typed(tmp_path, {"type": "timestamp", "timezone": zone}, *(one.isoformat() for one in shown))
    assert found == [_instant(one, clock) or ["type"] for one in shown]
    assert ["type"] in found


def _instant(local: datetime, clock: ZoneInfo) -> datetime | None:
    """The one instant at which a clock shows a local time."""
    folds = {local.replace(tzinfo=clock, fold=fold).astimezone(UTC) for fold in (0, 1)}
    at = [one for one in folds if one.astimezone(clock).replace(tzinfo=None) == local]
    return at[0] if len(at) == 1 else None


def test_limits_hold_to_the_last_digit(tmp_path: Path) -> None:
    most = 2**53 + 1
    whole = {"type": "integer", "min": -most, "max": most}
    assert typed(tmp_path, whole, str(most), str(-most)) == [most, -most]
    assert typed(tmp_path, whole, str(most + 1), str(-most - 1)) == [["max"], ["min"]]
    exact = {"type": "decimal(38,10)", "max": "12345678901234567.1234567891"}
    assert typed(tmp_path, exact, "12345678901234567.1234567892") == [["max"]]
    assert typed(tmp_path, exact, "12345678901234567.1234567891") == [Decimal("12345678901234567.1234567891")]
    with pytest.raises(ValidationError, match="has more digits than a number keeps: put it in quotes"):
        Model.model_validate({"columns": {"c": {"type": "decimal(38,10)", "max": 12345678901234567.5}}})
    contract = compile_contract(
        "m", Model.model_validate({"columns": {"c": {"type": "float", "max": 1e20, "min": 0.5}}})
    )
    assert [check.message for check in contract.columns[0].checks] == ["less than 0.5", f"more than {10**20}"]


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
        ({"pattern": r"\N{DIGIT ONE}"}, "the contract cannot be compiled"),
        ({"type": "timestamp", "timezone": "Mars/Olympus"}, "cannot be compiled: .*Mars/Olympus"),
    ],
)
def test_a_contract_that_means_nothing_is_refused_before_any_file(
    tmp_path: Path, column: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        typed(tmp_path, column, "x")


BERLIN_DAY = Bounds("c", datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))
TWO_DAYS = Bounds("c", date(1969, 12, 31), date(1970, 1, 2))


@pytest.mark.parametrize(
    ("bounds", "kind", "inside", "outside"),
    [
        (
            BERLIN_DAY,
            "timestamp",
            ("2026-03-28T23:00:00.000000Z", "2026-03-29T21:59:59.999999Z"),
            ("2026-03-28T22:59:59.999999Z", "2026-03-29T22:00:00.000000Z"),
        ),
        (TWO_DAYS, "date", ("1969-12-31", "1970-01-01"), ("1969-12-30", "1970-01-02")),
    ],
)
def test_rows_of_a_window_are_told_from_others_at_its_ends(
    tmp_path: Path, bounds: Bounds, kind: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    model = Model.model_validate({"load": "window", "window_column": "c", "columns": {"c": {"type": kind}}})
    contract = compile_contract("m", model, bounds)
    texts = pa.chunked_array([pa.array(inside)])
    [column] = contract.columns
    # Told at once, as each value of it is when the engine is asked.
    assert column.at_a_glance(texts) is not None
    assert all(column.at_a_glance(pa.chunked_array([pa.array([*inside, one])])) is None for one in outside)
    engine = Engine(context(tmp_path), contract)
    try:
        engine.check()
        _, valid = engine.typed(pa.table({"c": [*inside, *outside, None]}))
        errors = engine.errors(pa.table({"c": [*outside, None]})).to_pylist()
    finally:
        engine.close()
    assert valid is not None
    assert valid.to_pylist() == [True, True, False, False, False]
    assert [[one["code"] for one in each] for each in errors] == [["outside_window"], ["outside_window"], ["required"]]


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


JSON = [
    *("{}", "[1,2]", '"a"', "1", "-0", "1e5", "true", "null", "  1  ", '"\\u00e9"', '{"a":1,"a":2}', '"é"', "1E400"),
    *('{"a": "[1,]", "b": "NaN"}', "[ 1 , 2 ]", '"\\\\"', '["\\"", "x"]', "123456789012345678901234567890", "[]"),
    *("[[],{}]", "01", "1.", ".5", "NaN", "Infinity", "-Infinity", "nan", "[1,]", '{"a":1,}', '{"a":1}{"b":2}', "+1"),
    *("{'a':1}", "// c\n1", '"\x01"', '"\t"', "[1 2]", "0x10", "tru", "[", '"\\x"', "\x0c1", "\xa01", "-", "[,]"),
    *("[1,\n]", "[1 ,\t]", '"'),
]


@pytest.mark.parametrize("text", JSON)
def test_json_is_what_the_standard_says_and_stays_as_it_is_written(tmp_path: Path, text: str) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
        good = True
    except ValueError:
        good = False
    assert typed(tmp_path, {"type": "json"}, text) == [text if good else ["type"]]


@pytest.mark.parametrize(
    ("column", "taken", "left"),
    [
        ({"type": "date", "format": "%d.%m.%Y"}, {"01.02.2020": date(2020, 2, 1), "29.02.2020": date(2020, 2, 29)},
         ["1.2.2020", "30.02.2020", "01.02.20", "01.13.2020", "2020-02-01", "01.02.2020 ", "01.01.0000", "٠١.02.2020"]),
        ({"type": "date", "format": ["%Y%m%d", "%Y-%m-%d"]},
         {"20200102": date(2020, 1, 2), "2020-01-02": date(2020, 1, 2)},
         ["2020-0102", "20200231", "2020102"]),
        ({"type": "date", "format": "%d-%b-%Y"}, {"02-Jan-2020": date(2020, 1, 2), "02-DEC-2020": date(2020, 12, 2)},
         ["02-Jän-2020", "02-January-2020", "02.Jan.2020"]),
        ({"type": "date", "format": "100%% %Y %B %d"}, {"100% 2020 May 07": date(2020, 5, 7)}, ["100 2020 May 07"]),
        ({"type": "local_timestamp", "format": "%m/%d/%Y %I:%M %p"},
         {"01/02/2020 11:30 PM": datetime(2020, 1, 2, 23, 30), "01/02/2020 12:00 am": datetime(2020, 1, 2)},  # noqa: DTZ001
         ["01/02/2020 13:00 PM", "01/02/2020 00:30 AM", "01/02/2020 11:30"]),
        ({"type": "timestamp", "format": "%Y%m%dT%H%M%S%z"},
         {"20200102T030405+0200": datetime(2020, 1, 2, 1, 4, 5, tzinfo=UTC)},
         ["20200102T030405", "20200102T030405Z", "20200102T240000+0000", "20200102T030460+0000",
          "20200102T030405+1500"]),
        ({"type": "timestamp", "format": "%d.%m.%Y %H:%M", "timezone": "Europe/Zurich"},
         {"01.07.2024 12:00": datetime(2024, 7, 1, 10, tzinfo=UTC)}, ["31.03.2024 02:30", "27.10.2024 02:30"]),
        ({"type": "decimal(10,2)", "decimal_point": ",", "thousands": "."},
         {"1.234,50": Decimal("1234.50"), "1234,5": Decimal("1234.50"), "-,5": Decimal("-0.50"),
          "12.345.678": Decimal(12345678)},
         ["1,234.50", "1.23,4", "12.34", "1.234,567", "1..234", "1.2345"]),
        ({"type": "integer", "thousands": "'"}, {"1'234'567": 1234567, "12": 12}, ["1'23", "'123", "1'2345", "1,234"]),
        ({"type": "float", "decimal_point": ","}, {"1,5": 1.5, "1e3": 1000.0}, ["1.5", "1,5,5"]),
        ({"type": "boolean", "true_words": ["Ja", "on"], "false_words": ["nein"]},
         {"ja": True, "ON": True, "Nein": False},
         ["true", "1", "n"]),
        ({"enum": ["A", "B,C"]}, {"A": "A", "B,C": "B,C"}, []),
        ({"type": "integer", "enum": ["1", "-2"]}, {"1": 1, "01": 1, "-2": -2}, []),
    ],
)  # fmt: skip
def test_what_is_written_in_a_way_of_its_own_is_taken_so_and_not_otherwise(
    tmp_path: Path, column: dict[str, Any], taken: dict[str, Any], left: list[str]
) -> None:
    assert typed(tmp_path, column, *taken, *left) == [*taken.values(), *refused(len(left))]


@pytest.mark.parametrize(("column", "value"), [({"enum": ["A"]}, "a"), ({"type": "integer", "enum": ["1"]}, "2")])
def test_what_is_in_no_list_is_rejected_for_that(tmp_path: Path, column: dict[str, Any], value: str) -> None:
    assert typed(tmp_path, column, value) == [["enum"]]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"type": "date", "format": "%d.%m"}, "does not say the year"),
        ({"type": "date", "format": "%d.%m.%Y %H"}, "says a time, and a date has none"),
        ({"type": "timestamp", "format": "%d.%m.%Y %H:%M"}, "says no offset"),
        ({"type": "timestamp", "format": "%d.%m.%Y"}, "does not say the hour and the minute"),
        ({"type": "local_timestamp", "format": "%d.%m.%Y %H:%M%z"}, "says an offset"),
        ({"type": "date", "format": "%d.%m.%Q"}, "there is no %Q"),
        ({"type": "date", "format": "%d.%m.%Y%"}, "ends within a directive"),
        ({"type": "date", "format": "%d.%m.%Y %Y"}, "says a part twice"),
        ({"type": "date", "format": ["%d/%m/%Y", "%m/%d/%Y"]}, "and mean different times"),
        ({"type": "integer", "decimal_point": ","}, "decimal_point is nothing for type integer"),
        ({"type": "string", "thousands": ","}, "thousands is nothing for type string"),
        ({"type": "float", "thousands": "."}, "thousands and decimal_point are the same"),
        ({"type": "boolean", "true_words": ["x"]}, "come together"),
        ({"type": "boolean", "true_words": ["x"], "false_words": ["X"]}, "a word is both true and false"),
        ({"type": "boolean", "max": 1}, "min and max are nothing for type boolean"),
        ({"type": "integer", "enum": ["many"]}, "enum holds a value that is no integer"),
        ({"type": "date", "enum": ["2024-01-01"]}, "enum is nothing for type date"),
        ({"enum": []}, "at least 1 item"),
        ({"pattern": "(?=x)"}, r"RE2 has no \(\?="),
        ({"pattern": r"(a)\1"}, r"RE2 has no \\1"),
        ({"normalise": ["upper", "lower"]}, "contradict"),
        ({"normalise": "squeeze"}, "Input should be 'trim'"),
        ({"type": "jsonb"}, "unknown type"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused_with_the_configuration(column: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Model.model_validate({"columns": {"c": column}})


@pytest.mark.parametrize("pattern", [r"a\\1", r"[(]?=x", r"\(?x", "a+b*", r"\d{3}"])
def test_patterns_that_only_look_forbidden_are_allowed(pattern: str) -> None:
    Model.model_validate({"columns": {"c": {"pattern": pattern}}})


def normalised(folder: Path, model: dict[str, Any], *values: str | None) -> tuple[list[Any], dict[str, Any]]:
    engine = Engine(context(folder), compile_contract("m", Model.model_validate(model)))
    try:
        engine.check()
        text, changed = engine.normalised(pa.table({"c": pa.array(values, pa.string())}))
        typed_, _ = engine.typed(text)
    finally:
        engine.close()
    return typed_.column("c").to_pylist(), {step: sum(each.to_pylist()) for step, each in changed.get("c", {}).items()}


def test_texts_are_normalised_before_anything_is_asked_of_them_and_counted(tmp_path: Path) -> None:
    column = {"normalise": ["trim", "collapse_space", "nfc", "upper", "empty_to_null"], "max_length": 4}
    values = ["\u00a0a  b\u2003", "e\u0301", "AB", None, "  ", "ß"]
    assert normalised(tmp_path, {"columns": {"c": column}}, *values) == (
        ["A B", "É", "AB", None, None, "ẞ"],
        {"trim": 2, "collapse_space": 1, "nfc": 1, "upper": 3, "empty_to_null": 1},
    )


def test_a_models_normalisations_and_null_markers_are_its_columns_unless_they_have_their_own(tmp_path: Path) -> None:
    model: dict[str, Any] = {"normalise": ["trim"], "nulls": ["N/A"], "columns": {"c": {}}}
    assert normalised(tmp_path, model, " N/A ", "NULL", " x") == ([None, "NULL", "x"], {"trim": 2})
    model["columns"]["c"] = {"normalise": [], "nulls": ["NULL"]}
    assert normalised(tmp_path, model, " N/A ", "NULL", " x") == ([" N/A ", None, " x"], {})
    model["columns"]["c"] = {"type": "integer"}
    assert normalised(tmp_path, model, "N/A", "7") == ([None, 7], {})


PLAIN: dict[str, Callable[[str], object]] = {
    "integer": lambda text: re.fullmatch(r"[+-]?[0-9]+", text) and -(2**63) <= int(text) < 2**63,
    "decimal(6,2)": lambda text: re.fullmatch(r"[+-]?([0-9]+(\.[0-9]{1,2}0*)?|\.[0-9]{1,2}0*)", text)
    and abs(Decimal(text)) < 10**4,
    "date": lambda text: re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) and _dated(text),
}  # fmt: skip


def _dated(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("kind", PLAIN)
def test_whatever_is_written_python_and_the_contract_agree_on_what_is_of_a_type(tmp_path: Path, kind: str) -> None:
    lot = random.Random(7)
    alphabet = {"date": "0129-", "integer": "0129+-. e", "decimal(6,2)": "0129+-.,"}[kind]
    texts = ["".join(lot.choices(alphabet, k=lot.randint(1, 22 if kind == "integer" else 10))) for _ in range(4000)]
    texts += [f"20{lot.randint(0, 29):02d}-{lot.randint(0, 13):02d}-{lot.randint(0, 32):02d}" for _ in range(500)]
    found = typed(tmp_path, {"type": kind}, *texts)
    for text, value in zip(texts, found, strict=True):
        good = bool(PLAIN[kind](text))
        assert (value != ["type"]) == good, text
        if good:
            made: dict[str, Callable[[str], object]] = {"integer": int, "date": date.fromisoformat}
            assert value == made.get(kind, Decimal)(text), text
