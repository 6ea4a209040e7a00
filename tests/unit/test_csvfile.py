"""Splitting text into records: positions, flaws, the census, and what Python's csv module says."""

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from ingestkit import csvfile
from ingestkit.csvfile import blocks, open_text, unpacked
from ingestkit.csvvalues import raw_records, texts
from ingestkit.errors import ContractError
from ingestkit.settings import Dialect
from tests.contracts.zipped import zipped


@dataclass(frozen=True, slots=True)
class Seen:
    """All of a file: rows as read, (record, line, code) of flaws, raw bytes of flaws, and how its lines add up."""

    rows: list[tuple[str | None, ...]]
    flaws: list[tuple[int, int, str]]
    raw: list[bytes]
    lines: int
    explained: int


def seen(data: bytes, *, max_record_lines: int = 20, dialect: Dialect | None = None) -> Seen:
    text = open_text("x.csv", io.BytesIO(data), dialect or Dialect(), (), max_record_lines=max_record_lines)
    rows, flaws, raw = [], [], []
    before, explained = 0, text.header_lines
    for block in blocks(text):
        table, kept, found = texts(text, block)
        rows += [tuple(row.values()) for row in table.to_pylist()]
        explained += int(block.records.spans.sum())
        assert len(kept) + len(found) == len(block.records)
        for flaw in found:
            [line], [byte], [held] = raw_records(text, block, np.array([flaw.index]))
            content = held.as_py()
            assert data[byte : byte + len(content)] == content
            flaws.append((before + flaw.index + 1, int(line), flaw.code))
            raw.append(content)
        before += len(block.records)
    assert text.census.records == before
    return Seen(rows, flaws, raw, text.census.lines(text.newline), explained + text.census.blank)


def lines_in(data: bytes) -> int:
    return data.count(b"\n") + (0 if data.endswith(b"\n") or not data else 1)


@pytest.fixture(params=[16, 64, csvfile.BLOCK], ids=["tiny blocks", "small blocks", "one block"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Records across the borders of blocks must come out as within one."""
    monkeypatch.setattr(csvfile, "BLOCK", request.param)
    return int(request.param)


NASTY = [
    ("last line without an end", b"a,b\n1,2\n3,4", [("1", "2"), ("3", "4")], []),
    ("windows line ends", b"a,b\r\n1,2\r\n3,\r\n", [("1", "2"), ("3", None)], []),
    ("old line ends", b"a,b\r1,2\r3,4\r", [("1", "2"), ("3", "4")], []),
    ("mixed line ends", b"a,b\n1,2\r\n3,4\n", [("1", "2"), ("3", "4")], []),
    ("byte order mark", b"\xef\xbb\xbfa,b\n1,2\n", [("1", "2")], []),
    ("a mark in a value", b"a,b\n\xef\xbb\xbf1,2\n", [("\ufeff1", "2")], []),
    ("header only", b"a,b\n", [], []),
    ("header without an end", b"a,b", [], []),
    ("nothing", b"", [], []),
    ("blank lines", b"a,b\n\n1,2\n\r\n\n3,4\n\n", [("1", "2"), ("3", "4")], []),
    ("quoted header", b'"a","b\nc"\n1,2\n', [("1", "2")], []),
    ("doubled quotes", b'a,b\n"x ""y""",""""\n', [('x "y"', '"')], []),
    ("quoted line ends", b'a,b\n"1\r\n\n",2\n3,4\n', [("1\r\n\n", "2"), ("3", "4")], []),
    ("quoted nothing", b'a,b\n"",2\n', [(None, "2")], []),
    ("words that are null elsewhere", b"a,b\nNA,null\n", [("NA", "null")], []),
    ("wrong width", b"a,b\n1\n1,2,3\n1,2\n", [("1", "2")], [(1, 2, "columns"), (2, 3, "columns")]),
    ("stray quote", b'a,b\n5" nail,1\n2,3\n', [("2", "3")], [(1, 2, "quote")]),
    ("text behind a quote", b'a,b\n"x"y,1\n2,3\n', [("2", "3")], [(1, 2, "quote")]),
    (
        "two stray quotes far apart",
        b'a,b\n5" nail,1\n' + b"2,3\n" * 30 + b'6" nail,1\n4,5\n',
        [("2", "3")] * 30 + [("4", "5")],
        [(1, 2, "quote"), (32, 33, "quote")],
    ),
    (
        "closed by a quote that cannot close",
        b'a,b\n1,"x\n2,5" nail\n3,4\n',
        [("3", "4")],
        [(1, 2, "quote"), (2, 3, "quote")],
    ),
    ("never closed", b'a,b\n1,2\n3,"x\n4,5\n', [("1", "2"), ("4", "5")], [(2, 3, "quote")]),
    ("a quote at the end", b'a,b\n1,2\n"', [("1", "2")], [(2, 3, "quote")]),
    ("never closed, many lines", b'a,b\n3,"x\n' + b"4,5\n" * 40, [("4", "5")] * 40, [(1, 2, "too_long")]),
    ("a NUL", b"a,b\n1,\0\n2,3\n", [("2", "3")], [(1, 2, "nul")]),
    ("not UTF-8", b"a,b\n1,\xe9\n2,\xc3\xa9\n", [("2", "é")], [(1, 2, "encoding")]),
    ("a lone carriage return", b'a,b\n1\r,2\n"3\r",4\n', [("3\r", "4")], [(1, 2, "newline")]),
    ("a line feed among carriage returns", b"a,b\r1\n,2\r3,4\r", [("3", "4")], [(1, 2, "newline")]),
]


@pytest.mark.parametrize(("data", "rows", "flaws"), [case[1:] for case in NASTY], ids=[case[0] for case in NASTY])
def test_a_nasty_file_loses_its_flawed_records_and_no_more(
    block_size: int, data: bytes, rows: list[tuple[str, str]], flaws: list[tuple[int, int, str]]
) -> None:
    found = seen(data)
    assert (found.rows, found.flaws) == (rows, flaws)
    assert found.lines == found.explained


def test_a_record_of_as_many_lines_as_may_be_is_read_and_of_one_more_is_not(block_size: int) -> None:
    data = b'a,b\n"1\n2\n3",x\n4,y\n'
    assert seen(data, max_record_lines=3).rows == [("1\n2\n3", "x"), ("4", "y")]
    found = seen(data, max_record_lines=2)
    assert found.rows == [("4", "y")]
    assert [code for _, _, code in found.flaws] == ["too_long", "columns", "quote"]
    assert found.raw == [b'"1', b"2", b'3",x']


def test_another_delimiter_and_quote_are_taken(block_size: int) -> None:
    found = seen(b"a|b\n'1|2'|\"3\n", dialect=Dialect(delimiter="|", quote="'"))
    assert found.rows == [("1|2", '"3')]


def test_a_large_field_and_many_columns_are_read() -> None:
    names = ",".join(f"c{number}" for number in range(500))
    wide = ",".join("x" for _ in range(500))
    large = '"' + "y" * (1 << 20) + '"' + wide[1:]
    found = seen(f"{names}\n{wide}\n{large}\n".encode())
    assert [len(row) for row in found.rows] == [500, 500]
    assert len(found.rows[1][0] or "") == 1 << 20


def test_a_record_longer_than_memory_may_hold_fails_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "BLOCK", 64)
    monkeypatch.setattr(csvfile, "LONGEST_RECORD", 256)
    with pytest.raises(ContractError, match="a record of more than 256 bytes on line 2"):
        seen(b"a,b\n" + b"x" * 1000)


Cell = some.text(some.sampled_from('ab,"\r\n é0'), max_size=6)


@given(rows=some.lists(some.tuples(Cell, Cell, Cell), max_size=30), line_end=some.sampled_from(["\n", "\r\n"]))
def test_whatever_python_writes_is_read_as_it_was(rows: list[tuple[str, str, str]], line_end: str) -> None:
    into = io.StringIO(newline="")
    writer = csv.writer(into, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *rows])
    data = into.getvalue().encode()
    found = seen(data, max_record_lines=100)
    assert found.rows == [tuple(cell or None for cell in row) for row in rows]
    assert (found.flaws, found.lines) == ([], lines_in(data))
    assert found.lines == found.explained


@given(body=some.text(some.sampled_from('a,"\n'), max_size=80), size=some.sampled_from([16, 1 << 20]))
def test_whatever_stands_in_a_file_every_line_is_accounted_for_once(body: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfile, "BLOCK", size)
        data = b"a,b\n" + body.encode()
        found = seen(data, max_record_lines=3)
        assert found.lines == found.explained == lines_in(data)


@given(body=some.text(some.sampled_from('a,"\n'), max_size=80))
def test_where_a_file_is_cut_into_blocks_changes_nothing(body: str) -> None:
    data = b"a,b\n" + body.encode()
    found = []
    for size in (8, 32, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csvfile, "BLOCK", size)
            found.append(seen(data, max_record_lines=3))
    assert found[0] == found[1] == found[2]


def written(folder: Path, name: str, content: bytes) -> bytes:
    path = folder / name
    path.write_bytes(content)
    with path.open("rb") as file, unpacked(name, file) as stream:
        return stream.read()


def test_packed_files_are_unpacked_as_streams(tmp_path: Path) -> None:
    plain = b"a,b\n" + b"1,2\n" * 1000
    assert written(tmp_path, "x.csv", plain) == plain
    assert written(tmp_path, "x.csv.gz", gzip.compress(plain[:100]) + gzip.compress(plain[100:])) == plain


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv.gz", gzip.compress(b"1" * 5000)[:-9], r"x\.csv\.gz is damaged"),
        ("x.csv.gz", gzip.compress(b"1" * 5000)[:-8] + b"12345678", r"x\.csv\.gz is damaged"),
        ("x.csv.gz", b"a,b\n", r"x\.csv\.gz is named \.gz but is none"),
        ("x.csv", zipped({"x.csv": b"a,b\n"}), r"x\.csv is a zip archive, but not a file named \.zip"),
        ("b.zip!c.zip", zipped({"x.csv": b"a,b\n"}), r"c\.zip is a zip archive, .* or it is within another"),
    ],
    ids=["cut gzip", "wrong checksum", "no gzip", "zip called csv", "zip in a zip"],
)
def test_a_packed_file_that_cannot_be_read_whole_fails_by_name(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        written(tmp_path, name, content)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a,b\n".encode("utf-16"), "UTF-16"),
        (b"a,\xe9\n", "header that is not UTF-8"),
        (b'a,"b"c\n', "header that cannot be read"),
    ],
)
def test_a_header_that_is_no_text_fails_the_file(data: bytes, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        seen(data)
