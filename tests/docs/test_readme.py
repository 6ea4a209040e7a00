"""What the README says is what the program does."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import duckdb
import pytest

from ingestkit import errors
from ingestkit.cli.main import call
from tests.docs.pages import ROOT, below, commands, page, table, typed_below
from tests.docs.shop import in_a_shell
from tests.docs.typed import every_command

README = page("README.md")
MADE = [line for line in commands(README) if line.startswith("make ")]
AT_ONCE = "export INGESTKIT__PIPELINES__{}__SOURCE__SETTLE__QUIET=0s"
"""Typed once there is the pipeline: instead of the minute for which files must have been quiet."""


def test_the_table_of_commands_is_what_help_says() -> None:
    helps = {f"`ingestkit {name}`": " ".join(one.help.split()) for name, one in every_command().items()}
    assert table(README, "command") == [[name, said] for name, said in helps.items()]


def test_the_table_of_exit_codes_names_each_code_there_is() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.IngestkitError)]
    raised = {one.exit_code for one in kinds}
    told = {int(code) for row in table(README, "code") for code in row[0].split(", ")}
    assert told == raised | {0, 130, 143}


def test_what_make_is_told_to_make_can_be_made() -> None:
    rules = re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE)
    assert MADE[:2] == ["make run", "make run"]
    for line in MADE:
        assert shlex.split(line)[1] in rules
    assert re.search(r"^run:.*\n\t@\S+/ingestkit run opendata$", page("Makefile"), re.MULTILINE)


def test_the_first_two_commands_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    [block] = below(README, "ingestkit")
    shown = re.split(r"^\$ make run\n", block.text, flags=re.MULTILINE)[1:]
    printed = []
    for _ in shown:
        assert call(["run", "opendata"]) == 0
        printed.append(capsys.readouterr().out)
    assert [without_times(one) for one in printed] == [without_times(one) for one in shown]
    [look] = re.findall(r"`ingestkit (quarantine [^`]+)`", README.partition("\n## ")[0])
    assert call(look.split()) == 0
    assert "20260104_180000" in capsys.readouterr().out


def test_ones_own_files_are_loaded_in_five_minutes(tmp_path: Path) -> None:
    """All that is typed, in one shell; what it writes and prints is what is shown."""
    heading = "Your own files in five minutes"
    typed = typed_below(README, heading)
    assert typed[:2] == ["make install", ". .venv/bin/activate"]
    [pipeline] = [block.text for block in below(README, heading) if block.language == "yaml"]
    [run] = [block.text for block in below(README, heading) if block.language == "console"]
    check = typed.index("ingestkit check shop")
    printed = in_a_shell(*typed[2:check], AT_ONCE.format("SHOP"), *typed[check:], HOME=str(tmp_path))
    assert pipeline == "# config/pipelines/shop.yaml\n" + (tmp_path / "shop/config/pipelines/shop.yaml").read_text()
    assert "\n".join(without_times(run)[1:]) in "\n".join(without_times(printed))
    with duckdb.connect(str(tmp_path / "shop/state/warehouse.duckdb"), read_only=True) as target:
        assert target.execute("SELECT id, name FROM customers ORDER BY id").fetchall() == [(1, "Ana"), (2, "Bo")]


def test_another_pipeline_and_another_source_are_added_as_the_readme_says(tmp_path: Path) -> None:
    typed = typed_below(README, "Another pipeline, another source")
    (tmp_path / "tills").mkdir()
    assert any("file:///srv/tills" in line for line in typed)
    began = ["ingestkit init . --empty", "mkdir -p drop/2026-01-05", "cd drop/2026-01-05"]
    dropped = ["printf 'sku,name\\n1,Tea\\n' > items.csv", "printf 'sku,cent\\n1,250\\n' > prices.csv", "cd ../.."]
    there = [line.replace("/srv/tills", str(tmp_path / "tills")) for line in typed]
    lines = [f"cd {tmp_path}", *began, *dropped, there[0], AT_ONCE.format("STOCK"), *there[1:], "ingestkit config show"]
    printed = in_a_shell(*lines)
    assert "items" in printed
    assert f"{{type: local, path: {tmp_path}/tills}}" in printed
    assert not (tmp_path / "state/warehouse.duckdb").exists()


def without_times(text: str) -> list[str]:
    """The lines without how long things took, and without the room that took."""
    return [re.sub(r" +\S+ m?s$", " TIME", " ".join(line.split())) for line in text.strip().splitlines()]


def test_the_readme_is_the_packages_long_description() -> None:
    assert tomllib.loads(page("pyproject.toml"))["project"]["readme"] == "README.md"
