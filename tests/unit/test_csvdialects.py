"""Any dialect against Python's csv module, and anything at all against the line proof."""

import csv
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from ingestkit import csvfile
from ingestkit.csvfile import blocks, open_text
from ingestkit.csvvalues import texts
from ingestkit.settings import Dialect
from ingestkit.stages.validate import validate
from tests.unit.test_validate import context, land, rule, table

ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252")
NAMES = ("a", "b", "c")
BLOCKS = (16, 40, 1 << 20)


@dataclass(frozen=True, slots=True)
class Written:
    """Rows, and the file that Python's csv module and this dialect's frame make of them."""

    dialect: Dialect
    rows: list[tuple[str, ...]]
    content: bytes


@some.composite
def written(draw: Callable[[Any], Any]) -> Written:
    end = draw(some.sampled_from(["\n", "\r\n", "\r"]))
    dialect = Dialect(
        delimiter=draw(some.sampled_from([",", ";", "\t", "|", "\x01"])),
        quote=draw(some.sampled_from(['"', "'", "none"])),
        escape=draw(some.sampled_from(["double", "backslash"])),
        encoding=draw(some.sampled_from(ENCODINGS)),
        preamble=draw(some.sampled_from([0, 0, 2])),
        header=draw(some.booleans()),
        trailer=draw(some.sampled_from([(), ("END (?P<count>[0-9]+)",), ("END", "(?P<count>[0-9]+)")])),
        mixed_newlines=draw(some.sampled_from(["reject", "accept"])),
    )
    quoting = draw(some.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    if dialect.quote == "none":
        quoting = csv.QUOTE_NONE
    rows = draw(some.lists(some.tuples(*[some.text(_letters(dialect, quoting, end), max_size=5)] * 3), max_size=12))
    rows = [row for row in rows if any(row)]
    into = io.StringIO(newline="")
    writer = csv.writer(
        into,
        delimiter=dialect.delimiter,
        quotechar=None if dialect.quote == "none" else dialect.quote,
        quoting=quoting,
        doublequote=dialect.escape == "double",
        escapechar="\\" if dialect.escape == "backslash" else None,
        lineterminator=end,
    )
    writer.writerows([NAMES, *rows] if dialect.header else rows)
    lines = [*["as it is"] * dialect.preamble, into.getvalue()]
    text = end.join(lines)
    if len(dialect.trailer) == 2:
        text += f"END{end}{len(rows)}"
    elif dialect.trailer:
        text += f"END {len(rows)}{draw(some.sampled_from([end, '', end + end]))}"
    elif draw(some.booleans()) and not text.removesuffix(end).endswith(end):
        text = text.removesuffix(end)
    # A value that begins with a byte order mark makes one of it.
    assume(not text.startswith("\ufeff"))
    return Written(dialect, rows, text.encode(dialect.encoding))


def _letters(dialect: Dialect, quoting: int, end: str) -> Any:
    letters = "ab é0\\\"'\r\n" + dialect.delimiter
    if dialect.encoding != "latin-1":
        letters += "€"
    if dialect.encoding.startswith("utf"):
        letters += "😀\ufeff\u0a0d"
    if quoting != csv.QUOTE_ALL:
        # Python leaves line ends bare that are not the file's.
        letters = "".join(one for one in letters if one not in "\r\n" or one == end)
    if dialect.quote == "none" and dialect.escape == "double":
        letters = "".join(one for one in letters if one not in dialect.delimiter + "\r\n")
    return some.sampled_from(letters)


@given(file=written(), size=some.sampled_from(BLOCKS))
def test_whatever_python_writes_in_a_dialect_is_read_as_it_was(file: Written, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfile, "BLOCK", size)
        text = open_text("x", io.BytesIO(file.content), file.dialect, NAMES, max_record_lines=1000)
        rows: list[tuple[str | None, ...]] = []
        spans = 0
        for block in blocks(text):
            found, _, flaws = texts(text, block)
            assert not flaws
            rows += [tuple(row.values()) for row in found.to_pylist()]
            spans += int(block.records.spans.sum())
    assert rows == [tuple(cell or None for cell in row) for row in file.rows]
    census = text.census
    assert census.trailer.count == (len(rows) if file.dialect.trailer else None)
    frame = text.preamble_lines + text.header_lines + census.trailer.lines
    assert census.lines(text.newline) == frame + census.blank + census.trailer.blank + spans


Anything = some.one_of(
    some.binary(max_size=60),
    some.lists(
        some.sampled_from([b"1", b"x", b",", b'"', b"\\", b"\n", b"\r", b"\r\n", b"\xe9", b"\0"]), max_size=60
    ).map(b"".join),
)
Dialects = some.builds(
    Dialect,
    quote=some.sampled_from(['"', "none"]),
    escape=some.sampled_from(["double", "backslash"]),
    encoding=some.sampled_from(ENCODINGS),
    preamble=some.sampled_from([0, 1]),
    header=some.just(value=False),
    mixed_newlines=some.sampled_from(["reject", "accept"]),
)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(content=Anything, dialect=Dialects)
def test_whatever_stands_in_a_file_each_of_its_lines_is_one_thing(content: bytes, dialect: Dialect) -> None:
    found = [_validated(content, dialect, size) for size in BLOCKS]
    assert found[0] == found[1] == found[2]
    assert "accounted for" not in str(found[0])
    assert "two ways" not in str(found[0])


def _validated(content: bytes, dialect: Dialect, size: int) -> object:
    """All that validate makes of a file, which is proven; or what it refuses it for."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(csvfile, "BLOCK", size)
        columns = {"id": {"type": "integer"}, "name": {"type": "string"}}
        model = {"columns": columns, "csv": dialect.model_dump(), "allow_empty": True, "key": []}
        limits = {"max_file_reject_pct": 100, "max_record_lines": 3}
        ctx = context(Path(folder), model=model, validation=limits)
        work = validate(ctx, "hcp", [land(ctx, "b/x.csv", content)], [])
        if not work.artifacts:
            return rule(work, "whole_files").told
        valid, rejects = (table(ctx, one).to_pylist() for one in work.artifacts)
    [proof] = work.details["proof"]["files"]
    before = proof["preamble"]
    firsts = [row["_line"] or row["_record_no"] + before for row in valid] + [one["line"] for one in rejects]
    assert len(set(firsts)) == len(firsts)
    assert all(before < line <= proof["lines"] for line in firsts)
    assert proof["rejected_lines"] == len(rejects)
    for one in rejects:
        assert content[one["byte_start"] :].startswith(one["raw"])
    return valid, [{**one, "file_id": None} for one in rejects], proof
