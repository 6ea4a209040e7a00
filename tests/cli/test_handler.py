import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from ingestkit.cli.handler import handle
from ingestkit.cli.main import call
from ingestkit.cli.options import Globals, Output
from ingestkit.errors import (
    ConfigError,
    ContractError,
    GateClosed,
    IngestkitError,
    Interrupted,
    LeaseHeld,
    PartlyDone,
    SourceError,
    StateError,
    UsageError,
)
from ingestkit.outcome import ModelResult


def failing(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (ConfigError("x"), 3),
        (SourceError("x"), 4),
        (ContractError("x"), 5),
        (GateClosed("x"), 6),
        (StateError("x"), 7),
        (LeaseHeld("x"), 8),
        (PartlyDone("x"), 9),
        (Interrupted("x", exit_code=143), 143),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, IngestkitError) else str(value),
)
def test_an_expected_error_is_one_line_and_its_exit_code(
    error: IngestkitError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert handle(failing(error), Globals()) == code
    assert capsys.readouterr() == ("", "error: x\n")


def test_a_hint_is_the_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert handle(failing(ConfigError("no such key", hint="ingestkit config validate")), Globals()) == 3
    assert capsys.readouterr().err == "error: no such key\nhint: ingestkit config validate\n"


@pytest.mark.parametrize("output", [Output.JSON, Output.NDJSON])
def test_where_output_is_for_programs_an_error_is_told_there_too(
    output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PartlyDone("one failed", hint="again")
    done = ModelResult("p", "a", "b1", "p.b1.1", "run", "done")
    error.results = (done, replace(done, model="b"), replace(done, batch="b2", run_id=None))
    said = Globals(command="run", pipeline="p", output=output)
    assert handle(failing(error), said) == 9
    out, err = capsys.readouterr()
    assert err == "error: one failed\nhint: again\n"
    *_, answer = [json.loads(line) for line in out.splitlines()]
    assert (answer["status"], answer["message"], answer["exit_code"]) == ("failed", "one failed", 9)
    assert (answer["command"], answer["pipeline"], answer["run_ids"]) == ("run", "p", ["p.b1.1"])


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("no"), 1), (KeyboardInterrupt(), 130)])
def test_so_is_a_bug_and_an_interruption(
    error: BaseException, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert handle(failing(error), Globals(folder=tmp_path, output=Output.JSON)) == code
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["exit_code"], answer["pipeline"]) == ("failed", code, None)


@pytest.mark.parametrize(
    ("arguments", "code", "pipeline"),
    [
        (["run", "nowhere"], 3, "nowhere"),
        (["run"], 3, None),
        (["run", "--if-locked", "maybe"], 2, None),
        (["backfill", "p"], 2, "p"),
        (["plan", "p", "--skip-exit-code", "999"], 2, None),
        (["state", "reset", "p"], 2, "p"),
        (["query", "latest-runs"], 3, None),
        (["quarantine", "replay", "p", "--batch", "b"], 3, "p"),
    ],
)
def test_an_error_before_anything_is_open_is_an_answer_too(
    arguments: list[str],
    code: int,
    pipeline: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call([*arguments, "--output", "json"]) == code
    answer = json.loads(capsys.readouterr().out)
    words = " ".join(one for one in arguments[:2] if one not in ("nowhere", "p", "latest-runs", "--if-locked"))
    assert (answer["command"], answer["status"], answer["exit_code"]) == (words, "failed", code)
    assert (answer["pipeline"], answer["results"]) == (pipeline, [])
    assert call(arguments) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words", ["run --output json --bogus", "run --bogus --output=json", "bogus --output json", "runs --output json"]
)
def test_a_line_that_cannot_be_read_is_an_answer_too(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(words.split()) == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["exit_code"]) == ("failed", 2)


def test_a_program_is_given_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.yaml").write_text("nothing: known")
    monkeypatch.chdir(tmp_path)
    assert call(["config", "validate", "--output", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["rows"][0]["status"] == "failed"


def test_an_error_is_json_where_logs_are(capsys: pytest.CaptureFixture[str]) -> None:
    handle(failing(ConfigError("no such key", hint="fix it")), Globals(log_format="json"))
    assert json.loads(capsys.readouterr().err) == {
        "level": "error",
        "event": "no such key",
        "hint": "fix it",
        "exit_code": 3,
    }


def test_a_bug_is_one_line_and_its_traceback_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert handle(failing(ZeroDivisionError("by\nzero")), Globals(folder=tmp_path)) == 1
    shown = capsys.readouterr().err
    [kept] = (tmp_path / "bugs").iterdir()
    assert shown == f"bug: ZeroDivisionError: by zero\nhint: the traceback is in {kept}\n"
    assert "Traceback" in kept.read_text()


def test_a_bug_without_a_writable_state_folder_keeps_its_traceback_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert handle(failing(RuntimeError("x")), Globals(folder=in_the_way)) == 1
    assert f"the traceback is in {tmp_path}/ingestkit-bug-" in capsys.readouterr().err


def test_ctrl_c_is_130() -> None:
    assert handle(failing(KeyboardInterrupt()), Globals()) == 130
    assert handle(failing(typer.Abort()), Globals()) == 130


def test_what_a_command_returns_is_the_exit_code() -> None:
    assert handle(lambda: 99, Globals()) == 99
    assert handle(lambda: None, Globals()) == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["run", "--nonsense"], "no such option: --nonsense", "ingestkit run --help"),
        (["nonsense"], "no such command 'nonsense'", "ingestkit --help"),
        (["rum"], "Did you mean 'run'", "ingestkit --help"),
        (["state"], "missing command", "ingestkit state --help"),
        (["-q"], "no command was given", "ingestkit --help"),
        (["skip", "p"], "missing option '--batch'", "ingestkit skip --help"),
        (["run", "--limit", "0"], "invalid value for '--limit'", "ingestkit run --help"),
        (["run", "--if-locked", "x"], "'x' is none of fail, skip, wait:10m", "ingestkit run --help"),
        (["backfill", "p"], "a backfill needs --batch, --run-id, or --from and --to", "ingestkit runs list"),
        (
            ["backfill", "p", "--batch", "1", "--run-id", "r"],
            "a backfill needs --batch, --run-id, or",
            "ingestkit runs list",
        ),
        (["validate", "--batch", "1"], "no such option: --batch", "ingestkit validate --help"),
        (["run", "--output", "xml"], "invalid value for '--output'", "ingestkit run --help"),
        (
            ["manifest", "show", "--status", "lost"],
            "--status 'lost' is unknown; known are seen, landed",
            "such as: --status loaded",
        ),
        (["runs", "list", "--status", "lost"], "--status 'LOST' is unknown; known are OPEN", "such as: --status OPEN"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1:] == [f"hint: {hint}"]


def test_a_flag_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INGESTKIT_RUN_LIMIT", "0")
    assert call(["run"]) == 2
    assert "'--limit'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["manifest", "forget", "p", "--path", "a.csv", "--reason", "r"],
        ["state", "set", "p", "--batch", "1", "--reason", "r"],
        ["state", "reset", "p", "--reason", "r"],
        ["state", "adopt", "p", "--reason", "r"],
        ["state", "upgrade"],
    ],
    ids=" ".join,
)
def test_a_destructive_verb_needs_yes_where_nobody_can_be_asked(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(arguments) == 2
    assert "--yes" in capsys.readouterr().err


def test_a_folder_without_a_project_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--project", str(tmp_path), "state", "show"]) == 3
    assert "--project" in capsys.readouterr().err


# Python writes at once with PYTHONUNBUFFERED, else when its buffer is full or at its end: three places to fail.
BUFFERING = [pytest.param("", 10_000, id="much"), pytest.param("", 1, id="little"), pytest.param("1", 1, id="at once")]
DRAWING = (
    "import sys; from ingestkit.cli import handler, render\n"
    "from ingestkit.cli.options import Globals, Output\n"
    "rows = [{'path': 'x' * 100}] * int(sys.argv[1])\n"
    "sys.exit(handler.handle(lambda: render.emit(rows, Output.TEXT) or int(sys.argv[2]), Globals()))"
)
HELP = "import sys; from ingestkit.cli.main import call; sys.exit(call(['--help']))"


def drawn_into(stdout: int, unbuffered: str, script: str, *arguments: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    return ended.returncode, ended.stderr


@pytest.fixture
def unread() -> Iterator[int]:
    """The writing end of a pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize(("unbuffered", "rows"), BUFFERING)
def test_a_reader_that_leaves_is_no_error(unbuffered: str, rows: int, unread: int) -> None:
    assert drawn_into(unread, unbuffered, DRAWING, str(rows), "6") == (6, "")


def test_help_that_nobody_reads_is_quiet(unread: int) -> None:
    assert drawn_into(unread, "", HELP) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("unbuffered", "rows"), BUFFERING)
def test_a_full_disk_under_standard_output_is_said(unbuffered: str, rows: int) -> None:
    with Path("/dev/full").open("w") as full:
        code, shown = drawn_into(full.fileno(), unbuffered, DRAWING, str(rows), "0")
    assert (code, shown) == (7, "error: standard output cannot be written: No space left on device\n")
