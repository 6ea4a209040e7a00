"""A contract proposed from a sample says what the sample is, and accepts all of it."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestkit.errors import UsageError
from ingestkit.proposing import propose, written
from ingestkit.stages.validate import validate
from tests.unit.test_validate import context, land

WORDS = st.text("aé'\",;\n\t0 .", max_size=6)
KINDS: dict[str, st.SearchStrategy[str]] = {
    "whole": st.integers(-(10**20), 10**20).map(str),
    "exact": st.decimals(-(10**9), 10**9, places=3).map(str),
    "comma": st.decimals(-(10**9), 10**9, places=2).map(lambda one: str(one).replace(".", ",")),
    "double": st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "day": st.dates().map(str),
    "german": st.dates().map(lambda one: one.strftime("%d.%m.%Y")),
    "local": st.datetimes().map(lambda one: one.isoformat()),
    "truth": st.sampled_from(["yes", "no", "Y", "TRUE"]),
    "padded": st.integers(0, 999).map(lambda one: f"{one:05}"),
    "status": st.sampled_from(["NEW", "OLD"]),
    "words": WORDS,
    "any": st.one_of(WORDS, st.integers().map(str), st.dates().map(str)),
}


def sample(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def proposed(path: Path) -> dict[str, Any]:
    """The model as the pipeline file has it."""
    [model] = yaml.safe_load(written("p", "drop", [propose(path)]))["models"].values()
    return dict(model)


def accepted(folder: Path, path: Path) -> tuple[int, int]:
    """How many records of the sample are valid under its proposal, and how many are not."""
    ctx = context(
        folder,
        model={"key": [], **proposed(path)},
        validation={"max_file_reject_pct": 100},
        gate={"max_reject_pct": 100},
    )
    counts = validate(ctx, "hcp", [land(ctx, path.name, path.read_bytes())], ()).counts
    return counts.valid or 0, (counts.rejected or 0) + (counts.duplicates or 0)


def test_a_text_is_proposed_with_its_dialect_types_key_and_what_is_required(tmp_path: Path) -> None:
    rows = [f"{n};Ann{n};0{n};{n}.5;{n},25;1{n % 10}.01.2026;1{n % 10}.0{1 + n % 9}.2026;A{n % 2};" for n in range(25)]
    content = "No;First Name;zip;amount;price;born;due;state;note\n" + "\n".join(rows) + "\n"
    path = sample(tmp_path, "Customers_20260101.csv", content.encode("utf-16"))
    model = proposed(path)
    assert model["csv"] == {"delimiter": ";", "encoding": "utf-16"}
    assert (model["key"], model["load"]) == (["No"], "replace")
    assert model["columns"] == {
        "No": {"type": "integer", "required": True},
        "First Name": {"type": "string", "required": True, "max_length": 10},
        "zip": {"type": "string", "required": True, "pattern": r"\d+"},
        "amount": {"type": "decimal(10,1)", "required": True},
        "price": {"type": "decimal(10,2)", "decimal_point": ",", "required": True},
        "born": {"type": "date", "format": "%d.%m.%Y", "required": True},
        "due": {"type": "date", "format": "%d.%m.%Y", "required": True},
        "state": {"type": "string", "required": True, "enum": ["A0", "A1"]},
        "note": {"type": "string"},
    }
    assert accepted(tmp_path, path) == (25, 0)


def test_a_date_that_may_be_read_in_two_ways_is_left_to_a_person(tmp_path: Path) -> None:
    path = sample(tmp_path, "a.csv", "d\n01/02/2026\n03/04/2026\n")
    said = written("p", "drop", [propose(path)])
    assert "d: {type: string, required: true, max_length: 10}  # a date, written %d/%m/%Y or %m/%d/%Y" in said
    assert proposed(sample(tmp_path, "b.csv", "d\n01/02/2026\n03/24/2026\n"))["columns"]["d"]["format"] == "%m/%d/%Y"


@pytest.mark.parametrize(
    ("content", "dialect"),
    [
        ("a,b\n1,2\n", None),
        ("a\tb\n1\t2\n", {"delimiter": "\t"}),
        ("a|b\n1|x,y\n2|z\n", {"delimiter": "|"}),
        ("1,2\n3,4\n", {"header": False}),
        ('a;b\n1;O"Neil\n', {"delimiter": ";", "quote": "none"}),
        ('a,b\n1,"x \\" y"\n', {"escape": "backslash"}),
        ("a,b\n1,é\n".encode("cp1252"), {"encoding": "cp1252"}),
        (b"a,b\n1,\x81\n", {"encoding": "latin-1"}),
        ("\ufeffa,b\n1,é\n", None),
    ],
)
def test_the_dialect_is_said_where_it_is_not_the_usual_one(
    tmp_path: Path, content: str | bytes, dialect: dict[str, Any] | None
) -> None:
    path = sample(tmp_path, "a.csv", content)
    found = proposed(path).get("csv")
    assert found == ({**dialect, "delimiter": "tab"} if dialect and dialect.get("delimiter") == "\t" else dialect)
    valid, other = accepted(tmp_path, path)
    assert valid >= 1
    assert other == 0


def test_lines_of_json_and_parquet_are_samples_too(tmp_path: Path) -> None:
    rows = [{"id": n, "more": {"x": n}, "late": "x"} if n > 3 else {"id": n, "more": None} for n in range(6)]
    path = sample(tmp_path, "orders.jsonl", "".join(json.dumps(one) + "\n" for one in rows))
    assert proposed(path)["columns"] == {
        "id": {"type": "integer", "required": True},
        "more": {"type": "json"},
        "late": {"type": "string", "max_length": 10},
    }
    assert accepted(tmp_path, path) == (6, 0)
    into = io.BytesIO()
    pyarrow.parquet.write_table(
        pa.table(
            {
                "n": pa.array([1.0, 2.0]),
                "d": pa.array([1, None], pa.decimal128(12, 2)),
                "at": pa.array([0, 1], pa.timestamp("ms", tz="UTC")),
                "l": pa.array([[1], []]),
            }
        ),
        into,
    )
    path = sample(tmp_path, "items.parquet", into.getvalue())
    assert proposed(path)["columns"] == {
        "n": {"type": "float", "required": True},
        "d": {"type": "decimal(12,2)"},
        "at": {"type": "timestamp", "required": True},
        "l": {"type": "json", "required": True},
    }
    assert accepted(tmp_path, path) == (2, 0)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"a,b\n", "has no record"),
        ("a.csv", b"a,A\n1,2\n", "a column called 'a' stands there twice"),
        ("a.csv", b"a,b\n1,2\n1\n", "line 3: the record has 1 columns"),
        ("a.csv", b"a,b\n1,\0\n", "line 2: the record holds a NUL"),
        ("a.csv.gz", b"a,b\n1,2\n", "is named .gz but is none"),
        ("a.jsonl", b'{"a":1}\nx\n', "is a JSON object"),
        ("a.parquet", b"PAR1", "is no whole Parquet file"),
    ],
)
def test_what_nothing_can_be_proposed_from_is_said_in_one_line(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        propose(sample(tmp_path, name, content))


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data(), st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=4), st.sampled_from(",;\t|"))
def test_every_sample_is_accepted_by_what_was_proposed_from_it(
    data: st.DataObject, kinds: list[str], delimiter: str
) -> None:
    names = [f"{kind}_{place}" for place, kind in enumerate(kinds)]
    rows = data.draw(st.lists(st.tuples(*(KINDS[kind] for kind in kinds)), min_size=1, max_size=30))
    into = io.StringIO()
    writer = csv.writer(into, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(names)
    writer.writerows(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = sample(Path(folder), "sample.csv", into.getvalue())
        assert accepted(Path(folder), path) == (len(rows), 0)
