"""Lines of JSON taken apart by positions must say what Python's own reader says of each."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestkit import jsonlines

KEYS = ["a", "b", 'c"', "d\\", "é:{", ""]
SPACES = st.text(" \t\r", max_size=2)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text('ab"\\{}[]:,é😀\n\t', max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner)),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as conn:
        yield conn


def objects_in(db: duckdb.DuckDBPyConnection, lines: Sequence[str]) -> tuple[list[bool], jsonlines.Members]:
    written = [line.encode() for line in lines]
    ends = np.cumsum([len(one) + 1 for one in written], dtype=np.int64) - 1
    starts = ends - np.array([len(one) for one in written], np.int64)
    whole, found = jsonlines.objects(db, b"".join(one + b"\n" for one in written), starts, ends)
    return whole.tolist(), found


def taken(db: duckdb.DuckDBPyConnection, lines: Sequence[str], *, raw: bool = False) -> list[dict[str, Any]]:
    """What each line holds, by key; lines that are no objects are left out."""
    whole, found = objects_in(db, lines)
    rows: list[dict[str, Any]] = [{} for one in whole if one]
    for place, key in enumerate(found.keys):
        texts, nested = jsonlines.texts_of(db, found, found.key == place, len(rows), raw=raw)
        for row, text, deep in zip(rows, texts.to_pylist(), nested, strict=True):
            if text is not None:
                row[key] = json.loads(text, parse_int=str, parse_float=str) if deep else text
    return rows


def told(value: Any) -> Any:
    """A value as Python's reader has it, in the words of its line."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


@st.composite
def lines(draw: st.DrawFn) -> str:
    """An object as somebody might write it: spaces anywhere, characters escaped or not."""
    members = draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
    plain = draw(st.booleans())
    parts = [
        f"{draw(SPACES)}{json.dumps(key, ensure_ascii=plain)}{draw(SPACES)}:{draw(SPACES)}"
        f"{json.dumps(value, ensure_ascii=plain)}{draw(SPACES)}"
        for key, value in members.items()
    ]
    return f"{draw(SPACES)}{{{','.join(parts)}}}{draw(SPACES)}"


@pytest.mark.slow
@given(st.lists(lines(), max_size=6))
def test_every_value_is_what_another_reader_finds(written: list[str]) -> None:
    with duckdb.connect(":memory:") as conn:
        found = taken(conn, written)
    expected = [json.loads(line, parse_int=str, parse_float=str) for line in written]
    assert found == [{key: told(value) for key, value in one.items() if value is not None} for one in expected]


def test_digits_stay_as_they_are_written(db: duckdb.DuckDBPyConnection) -> None:
    line = '{"a": 1.10, "b": 123456789012345678, "c": 0.12345678901234567890, "d": -0.0, "e": 1E+5, "f": {"g": 1.10}}'
    [found] = taken(db, [line])
    assert found == {
        "a": "1.10",
        "b": "123456789012345678",
        "c": "0.12345678901234567890",
        "d": "-0.0",
        "e": "1E+5",
        "f": {"g": "1.10"},
    }


def test_what_is_wanted_raw_keeps_its_quotes(db: duckdb.DuckDBPyConnection) -> None:
    assert taken(db, [r'{"a": "x\n", "b": 1}'], raw=True) == [{"a": r'"x\n"', "b": "1"}]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1",
        "null",
        "[1]",
        '"text"',
        "not json",
        "{",
        '{"a":1,}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":01}',
        '{"a":+1}',
        '{"a":.5}',
        '{"a":5.}',
        '{"a":tru}',
        '{"a":1 2}',
        '{"a" 1}',
        '{"a":"b":1}',
        '{"a":1}{"b":2}',
        '{"a":1} x',
        "{'a':1}",
        "{a:1}",
        '{"a":/*b*/1}',
        '{"a":"tab\there"}',
        r'{"a":"\x"}',
        r'{"a":"\ud800"}',
        '\ufeff{"a":1}',
    ],
)
def test_what_the_standard_refuses_is_no_object(db: duckdb.DuckDBPyConnection, line: str) -> None:
    whole, found = objects_in(db, ['{"b":2}', line, '{"a":1}'])
    assert (whole, found.keys) == ([True, False, True], ("b", "a"))


def test_a_key_that_stands_twice_is_seen_however_it_is_escaped(db: duckdb.DuckDBPyConnection) -> None:
    written = ['{"a":1,"b":2}', r'{"a":1,"\u0061":2}', '{"b":{"a":1,"a":2},"a":1}', '{"x":1,"y":1,"x":1}']
    _, found = objects_in(db, written)
    columns = np.array([{"a": 0, "b": 1}.get(key, -1) for key in found.keys])
    assert list(jsonlines.doubled(found, columns)) == [1, 3]
