"""`query` as it is typed: the list, a table, programs' answers, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingestkit.cli.main import call

FAILING = (
    "-- What failed.\n-- :pipeline text\n-- :word text none\nSELECT :pipeline AS pipeline, :word AS word, 1 AS n\n"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.yaml").write_text("")
    (tmp_path / "sql" / "ops").mkdir(parents=True)
    (tmp_path / "sql" / "ops" / "mine.sql").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    ended = call(["query", *arguments])
    shown = capsys.readouterr()
    assert ended == code, shown.err
    return shown.err if code else shown.out


def test_without_a_name_queries_are_listed_with_what_they_show(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys).splitlines()
    assert lines[0].split() == ["name", "shows", "parameters"]
    assert any(line.split() == ["mine", "What", "failed.", "pipeline,", "word=none"] for line in lines)
    listed: list[dict[str, Any]] = json.loads(said(capsys, "--output", "json"))["rows"]
    assert {"mine", "failed-runs", "success-rate"} <= {row["name"] for row in listed}
    assert {"name", "shows", "parameters", "file"} == set(listed[0])
    assert not (project / "state").exists()


def test_rows_are_a_table_or_what_a_program_reads(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "config/pipelines").mkdir()
    (project / "config/pipelines/shop.yaml").write_text("pipeline: shop\n")
    assert said(capsys, "mine").splitlines()[1].split() == ["-", "none", "1"]
    asked = ("mine", "--pipeline", "shop", "--set", "word=a=b", "--output")
    row = {"pipeline": "shop", "word": "a=b", "n": 1}
    assert json.loads(said(capsys, *asked, "json")) == {"schema_version": 1, "rows": [row]}
    assert json.loads(said(capsys, *asked, "ndjson")) == {"schema_version": 1, **row}
    assert said(capsys, "failed-runs") == "no rows\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["mien"], 2, "there is no query 'mien'; did you mean 'mine'?"),
        (["mine", "--set", "word"], 2, "--set 'word' is not of the form name=value"),
        (["mine", "--set", "=x"], 2, "is not of the form name=value"),
        (["mine", "--set", "now=1d"], 2, "query mine has no parameter 'now'"),
        (["failed-runs", "--set", "since=soon"], 2, "since=soon: 'soon' is no instant"),
        (["--pipeline", "shop"], 2, "which query is to be asked?"),
        (["broken"], 3, "broken.sql cannot be asked: near"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    (project / "sql" / "ops" / "broken.sql").write_text("SELEC 1")
    shown = said(capsys, *arguments, code=code)
    assert told in shown.splitlines()[0]
    assert "Traceback" not in shown
