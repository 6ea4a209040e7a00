"""Text, JSON lines and Parquet of one model side by side: one contract, one table, one account of every record."""

import io
import json
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tests.integration.world import World


def packed(columns: dict[str, Any]) -> bytes:
    into = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), into)
    return into.getvalue()


MIXED: dict[str, str | bytes] = {
    "20260101/b.csv": "id,d\nx,2026-01-01\ny,2026-1-2\n",
    "20260101/b_more.jsonl": '{"id": "j", "d": "2026-02-01"}\n{"d": "2026-02-02"}\n{"id": "x", "d": null}\n',
    "20260101/b_rest.parquet": packed({"d": pa.array([date(2026, 3, 1), None]), "id": pa.array(["p", None])}),
}
OPEN = {"models.b.files": r"^b(_\w+)?\.\w+$", "validation.max_file_reject_pct": 100, "gate.max_reject_pct": 100}


def test_files_of_three_formats_are_one_model(world: World) -> None:
    world.set_up(OPEN)
    world.drop(MIXED)
    [result] = [one for one in world.does("run")["results"] if one["model"] == "b"]
    assert (result["rows"], result["rejected"], result["duplicates"]) == (3, 4, 1)
    rows = [("j", date(2026, 2, 1)), ("p", date(2026, 3, 1)), ("x", date(2026, 1, 1))]
    assert world.table("b", "id", "d") == rows
    shown = world.does("quarantine", "show")["rows"]
    assert {(one["path"], one["record"], one["line"]) for one in shown} == {
        ("20260101/b.csv", 2, 3),
        ("20260101/b_more.jsonl", 2, 2),
        ("20260101/b_more.jsonl", 3, 3),
        ("20260101/b_rest.parquet", 2, 2),
    }
    [parquet] = [one for one in shown if one["path"].endswith("parquet")]
    assert (parquet["fields"], json.loads(parquet["raw"])) == ({"d": None, "id": None}, {"d": None, "id": None})
    assert world.does("run")["status"] == "nothing new"


def test_what_was_rejected_of_json_and_parquet_is_replayed_like_texts(world: World) -> None:
    world.set_up(OPEN | {"models.b.columns.d.max": "2026-01-31"})
    world.drop(MIXED)
    world.does("run")
    assert world.table("b", "id") == [("x",)]
    world.set_up(OPEN)
    world.does("quarantine", "replay", "p", "--batch", "20260101", "--model", "b")
    assert world.table("b", "id") == [("j",), ("p",), ("x",)]


def test_a_plan_reads_the_names_of_every_format(world: World) -> None:
    world.set_up(OPEN | {"models.b.drift": "evolve"})
    world.drop(
        {
            "20260101/b.csv": "id,d,c\nx,,1\n",
            "20260101/b_more.jsonl": '{"id": "j", "j": 1}\n',
            "20260101/b_rest.parquet": packed({"id": pa.array(["p"]), "q": pa.array([1])}),
        }
    )
    planned = " ".join(one["statement"] for one in world.does("plan")["ddl"] if one["model"] == "b")
    assert all(f'"{name}" VARCHAR' in planned for name in ("c", "j", "q")), planned
    world.does("run")
    assert world.table("b", "id", "c", "j", "q") == [
        ("j", None, "1", None),
        ("p", None, None, "1"),
        ("x", "1", None, None),
    ]


def test_a_rehearsal_of_some_rows_reads_every_format(world: World) -> None:
    world.set_up(OPEN)
    world.drop(MIXED)
    said = world.does("run", "--dry-run=data", "--rows", "1")
    [result] = [one for one in said["results"] if one["model"] == "b"]
    assert (result["rows"], result["rejected"]) == (3, 0)
