import csv
import getpass
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ingestkit.cli.main import call

SETTINGS = """
connections:
  drop: {type: local, path: drop}
  lake: {type: local, path: state/lake}
  warehouse: {type: duckdb, path: state/warehouse.duckdb}
"""
PIPELINE = r"""
pipeline: NAME
source: {type: files, connection: drop, batches: {folders: '(?P<batch>\d{8})'}, settle: {quiet: 0s}}
models:
  TABLE: {files: '^TABLE\.csv$', key: [id], columns: {id: {type: integer}}}
"""
BATCH = "20260101"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config" / "pipelines").mkdir(parents=True)
    (tmp_path / "drop" / BATCH).mkdir(parents=True)
    (tmp_path / "config" / "settings.yaml").write_text(SETTINGS)
    (tmp_path / "drop" / BATCH / "people.csv").write_text("id\n1\n2\n")
    add_pipeline(tmp_path, "staff", "people")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add_pipeline(root: Path, name: str, table: str, quiet: str = "0s") -> None:
    text = PIPELINE.replace("NAME", name).replace("TABLE", table).replace("0s", quiet)
    (root / "config" / "pipelines" / f"{name}.yaml").write_text(text)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """The JSON a command answers with; its logs are on standard error."""
    capsys.readouterr()
    ended = call([*arguments, "--output", "json"])
    shown = capsys.readouterr()
    assert ended == code, shown.err
    found: dict[str, Any] = json.loads(shown.out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    capsys.readouterr()
    assert call(list(arguments)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_a_run_ends_with_an_object_per_model(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "run", "staff")
    [result] = found["results"]
    assert (found["status"], found["exit_code"]) == ("done", 0)
    assert (result["model"], result["batch"], result["rows"], result["rejected"]) == ("people", BATCH, 2, 0)
    assert result["run_id"] in found["run_ids"]


def test_nothing_new_is_one_line_and_exit_code_0_or_the_one_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "run")
    capsys.readouterr()
    assert call(["run"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("nothing new")
    assert shown.out.count("\n") == 1
    assert answer(capsys, "run", "--skip-exit-code", "99", code=99)["exit_code"] == 99


def test_log_lines_off_a_terminal_are_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"load", "gate"} <= {line.get("stage") for line in lines}


def test_quiet_says_only_the_result(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["-q", "run"]) == 0
    assert capsys.readouterr().err == ""


def test_stages_in_processes_of_their_own_do_what_run_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ingestkit extract" in refused(capsys, "load", "staff")
    for stage in ("extract", "validate", "load", "gate", "clean"):
        assert answer(capsys, stage, "--run-id", "mine")["exit_code"] == 0
    assert answer(capsys, "run")["status"] == "nothing new"
    assert answer(capsys, "runs", "show", "mine")["run"]["status"] == "SUCCESS"


def test_a_pipeline_must_be_named_where_there_are_two(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_pipeline(project, "other", "animals")
    assert "name a pipeline: the project has other, staff" in refused(capsys, "run")


def test_a_run_in_the_state_names_its_pipeline(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "extract", "staff", "--run-id", "mine")
    add_pipeline(project, "other", "animals")
    assert answer(capsys, "validate", "--run-id", "mine")["pipeline"] == "staff"


def test_a_batch_is_done_again_on_request(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "run")
    assert answer(capsys, "backfill", "--batch", BATCH)["results"][0]["rows"] == 2


def test_runs_are_listed_and_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [run_id] = answer(capsys, "run")["run_ids"]
    assert [row["run_id"] for row in answer(capsys, "runs", "list", "--status", "success")["rows"]] == [run_id]
    assert answer(capsys, "runs", "list", "--status", "failed")["rows"] == []
    assert call(["runs", "show", run_id]) == 0
    shown = capsys.readouterr().out
    for part in ("\nstages\n", "\nmodels\n", "\nfiles\n", "\nrules\n", "people.csv"):
        assert part in shown
    assert "hint: ingestkit runs list" in refused(capsys, "runs", "show", "nobody")


def test_runs_are_found_by_model_invocation_and_start(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*filters: str) -> list[str]:
        return [row["run_id"] for row in answer(capsys, "runs", "list", *filters)["rows"]]

    answer(capsys, "run", "--run-id", "mine")
    (project / "drop" / "20260102").mkdir()
    (project / "drop" / "20260102" / "people.csv").write_text("id\n3\n")
    [second] = answer(capsys, "run")["run_ids"]
    assert ids("--model", "people") == [second, "mine"]
    assert ids("--model", "animals") == []
    assert ids("--invocation", "mine") == ["mine"]
    started = {row["run_id"]: row["started_at"] for row in answer(capsys, "runs", "list")["rows"]}
    assert ids("--since", started[second]) == [second]
    assert ids("--until", started[second]) == ["mine"]
    assert ids("--since", "1h", "--until", "0s", "--limit", "1") == [second]
    assert ids("--since", "9999-01-01") == []
    assert "--until: 'noon' is no instant" in refused(capsys, "runs", "list", "--until", "noon")


def test_a_run_is_shown_with_its_counts_and_where_else_something_of_it_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [run_id] = answer(capsys, "run")["run_ids"]
    places = answer(capsys, "runs", "show", run_id)["places"]
    assert {path.name for path in Path(places["sidecars"]).iterdir()} >= {"validate.people.json", "gate._all.json"}
    assert list((project / "state/lake" / places["lake"]).iterdir())
    assert f"process {os.getpid()} on " in places["log"]
    assert call(["runs", "show", run_id]) == 0
    shown = capsys.readouterr().out
    [line] = [one.split() for one in shown.splitlines() if one.split()[:2] == ["validate", "people"]]
    assert line[2:8] == ["SUCCESS", "0", "2", "0", "7", "B"]
    assert "drift" not in shown


def test_the_ledger_is_shown_and_exported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "run")
    path = f"{BATCH}/people.csv"
    assert [row["path"] for row in answer(capsys, "manifest", "show", "--status", "loaded")["rows"]] == [path]
    assert answer(capsys, "manifest", "show", "--model", "animals")["rows"] == []
    assert call(["manifest", "export"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["path"], row["loaded"], row["rejected"], row["reason"]) == (path, "2", "0", "")
    to = project / "ledger.ndjson"
    assert answer(capsys, "manifest", "export", "--format", "ndjson", "--to", str(to))["rows"] == 1
    assert json.loads(to.read_text())["path"] == path


def test_an_export_that_cannot_be_written_says_where(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "file").touch()
    assert "file/x.csv cannot be written" in refused(capsys, "manifest", "export", "--to", "file/x.csv", code=7)


def test_a_decision_names_who_took_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "pause", "staff", "--reason", "audit")
    assert answer(capsys, "run")["status"] == "paused"
    answer(capsys, "resume", "staff", "--reason", "over", "--by", "Zoë")
    assert answer(capsys, "run")["status"] == "done"
    by = {one["kind"]: one["by"] for one in answer(capsys, "state", "show")["decisions"]}
    assert by == {"pause": getpass.getuser(), "resume": "Zoë"}


def test_a_destructive_verb_asks_and_no_is_an_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answering(io.StringIO):
        def isatty(self) -> bool:
            return True

    answer(capsys, "run")
    monkeypatch.setattr(sys, "stdin", Answering("n\n"))
    assert "not confirmed; nothing was changed" in refused(capsys, "state", "reset", "staff", "--reason", "r")
    assert answer(capsys, "run")["status"] == "nothing new"
    monkeypatch.setattr(sys, "stdin", Answering("y\n"))
    assert call(["state", "reset", "staff", "--reason", "r"]) == 0
    assert answer(capsys, "run")["status"] == "done"


def test_pending_writes_are_shown_and_made(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "queue", "show")["rows"] == []
    assert answer(capsys, "queue", "flush")["exit_code"] == 0


def test_a_settings_file_that_is_wrong_is_exit_code_3(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "config" / "settings.yaml").write_text(SETTINGS + "jbos: 3\n")
    assert "jobs" in refused(capsys, "run", code=3)


def test_a_termination_while_a_run_waits_ends_it_at_a_safe_point(project: Path) -> None:
    add_pipeline(project, "staff", "people", quiet="60s")
    process = subprocess.Popen(
        [sys.executable, "-c", "from ingestkit.cli.main import main; main()", "--log-format", "text", "run"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stderr is not None
    assert any("to settle" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    out, shown = process.communicate(timeout=30)
    assert process.returncode == 143
    assert out == ""
    assert "stopping at the next safe point" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_a_state_is_exported_without_being_held_in_memory(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "run", "staff")
    whole = answer(capsys, "state", "export", "--to", "state.ndjson")
    with sqlite3.connect(project / "state" / "ingestkit.db") as db:
        columns = ", ".join(row[1] for row in db.execute("PRAGMA table_info(pipeline_run)"))
        copied = columns.replace("run_id", "run_id || value").replace("attempt", "attempt + value")
        copied = copied.replace("error", "hex(randomblob(4000))")
        numbers = "WITH RECURSIVE n (value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM n WHERE value < 2500)"
        db.execute(f"{numbers} INSERT INTO pipeline_run ({columns}) SELECT {copied} FROM pipeline_run, n")
    db.close()
    tracemalloc.start()
    try:
        rows = answer(capsys, "state", "export", "--to", "state.ndjson")["rows"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = (project / "state.ndjson").stat().st_size
    assert (rows, size > 20e6) == (whole["rows"] + 2500, True)
    assert most < size / 2
    assert (project / "state.ndjson").read_bytes().count(b"\n") == rows + 2
