import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestkit.cli import render
from ingestkit.cli.options import Output
from ingestkit.outcome import ModelResult, Outcome

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
DONE = Outcome(
    "run",
    "opendata",
    "done",
    "2 models of batch 20260101 done in 1.5 s",
    results=(
        ModelResult(
            "opendata", "hcp", "20260101", "r1", "gate", "done", rows=1234, rejected=0, bytes=4096, seconds=1.5
        ),
        ModelResult("opendata", "hco", "20260101", "r1", "gate", "absent", detail="no file"),
    ),
    warnings=("checkpoint has not moved for 20 days",),
    run_ids=("r1",),
)


def on_a_terminal(shown: str, **environ: str) -> str:
    """What a terminal is given when `shown` is drawn on it."""
    script = f"from ingestkit.cli import render; from ingestkit.cli.options import Output; {shown}"
    ours, theirs = os.openpty()
    bare = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    environ = {**bare, "TERM": "xterm-256color", "COLUMNS": "100", **environ}
    try:
        subprocess.run([sys.executable, "-c", script], stdout=theirs, env=environ, check=True, timeout=60)
        return os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_outcome_is_an_aligned_table_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    render.outcome(DONE, Output.TEXT)
    assert capsys.readouterr().out.splitlines() == [
        "model  batch     status   rows  rejected   bytes   time  detail",
        "hcp    20260101  done    1,234         0  4.1 kB  1.5 s  -",
        "hco    20260101  absent      -         -       -      -  no file",
        "",
        "2 models of batch 20260101 done in 1.5 s",
    ]


def test_equal_values_of_a_column_look_as_what_they_are() -> None:
    rows = [{"it": value} for value in (1, True, 1.0, "1", 0, False, None, [1], "1")]
    assert render.table(rows, ["it"]).split() == ["it", "1", "yes", "1", "1", "0", "no", "-", "[1]", "1"]


def test_nothing_new_is_a_single_line(capsys: pytest.CaptureFixture[str]) -> None:
    render.outcome(Outcome("run", "opendata", "nothing new", "opendata: nothing new"), Output.TEXT)
    assert capsys.readouterr().out == "opendata: nothing new\n"


def test_json_has_a_schema_version_and_keeps_unknown_apart_from_zero(capsys: pytest.CaptureFixture[str]) -> None:
    render.outcome(DONE, Output.JSON)
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema_version"] == 1
    assert shown["results"][0]["rejected"] == 0
    assert shown["results"][1]["rejected"] is None
    assert set(shown) == {
        *("schema_version", "command", "pipeline", "status", "message", "exit_code", "run_ids", "warnings", "results")
    }
    assert list(shown["results"][0]) == [
        *("pipeline", "model", "batch", "run_id", "stage", "status", "rows", "rejected", "duplicates"),
        *("superseded", "bytes", "sha256", "seconds", "sidecar", "detail", "window"),
    ]


def test_json_off_a_terminal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    render.outcome(DONE, Output.JSON)
    assert capsys.readouterr().out.count("\n") == 1


def test_ndjson_is_a_line_per_model_and_ends_with_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    render.outcome(DONE, Output.NDJSON)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["schema_version"], line["kind"]) for line in lines] == [(1, "model"), (1, "model"), (1, "outcome")]
    assert lines[-1]["status"] == "done"


def test_rows_are_listed_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"path": Path("a.csv"), "at": AT, "size": 0, "read": None}]
    render.emit(rows, Output.TEXT)
    assert capsys.readouterr().out.splitlines()[1] == "a.csv  2026-03-01 12:30:00Z   0 B     -"
    render.emit(rows, Output.JSON)
    plain = {"path": "a.csv", "at": "2026-03-01T12:30:00Z", "size": 0, "read": None}
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "rows": [plain]}
    render.emit(rows, Output.NDJSON)
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, **plain}


def test_no_rows_are_said_in_text_and_an_empty_list_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    render.emit([], Output.TEXT, empty="no runs")
    render.emit([], Output.JSON)
    render.emit([], Output.NDJSON)
    assert capsys.readouterr().out == 'no runs\n{"schema_version": 1, "rows": []}\n'


def test_what_is_nested_stands_under_its_own_heading(capsys: pytest.CaptureFixture[str]) -> None:
    render.emit(
        {"run": {"run_id": "r1", "models": ["a", "b"]}, "stages": [{"stage": "load", "rows": 5}], "rules": []},
        Output.TEXT,
    )
    assert capsys.readouterr().out.splitlines() == [
        "rules  -",
        "",
        "run",
        "  run_id  r1",
        "  models  a, b",
        "",
        "stages",
        "  stage  rows",
        "  load      5",
    ]


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    render.emit([{"path": "a\x1b[2Jb\nc"}], Output.TEXT)
    assert capsys.readouterr().out == "path\na\\x1b[2Jb\\nc\n"


def test_a_terminal_gets_a_drawn_and_coloured_table() -> None:
    shown = on_a_terminal("render.emit([{'status': 'done', 'rows': 5}], Output.TEXT)")
    assert "───" in shown
    assert "\x1b[32mdone" in shown


def test_no_color_is_respected() -> None:
    shown = on_a_terminal("render.emit([{'status': 'done', 'rows': 5}], Output.TEXT)", NO_COLOR="1")
    assert "───" in shown
    assert "\x1b[3" not in shown


def test_square_brackets_in_a_name_are_not_markup() -> None:
    shown = on_a_terminal("render.emit([{'path': '[red]a[/red].csv'}], Output.TEXT)", NO_COLOR="1")
    assert "[red]a[/red].csv" in shown


def test_json_is_indented_for_people() -> None:
    assert "\n  " in on_a_terminal("render.emit({'a': 1}, Output.JSON)").replace("\r", "")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3599.9, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_300_000_000, "5.3 GB")])
def test_sizes_are_for_people(count: int, shown: str) -> None:
    assert render.size(count) == shown
