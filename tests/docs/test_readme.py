"""What the README says is what the program does."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from ingestkit import errors
from ingestkit.cli.main import call
from ingestkit.csvvalues import MESSAGES
from ingestkit.settings import Dialect, PipelineSettings
from ingestkit.states import queries
from tests.docs.pages import ROOT, Block, below, blocks, commands, page, table
from tests.docs.typed import every_command, understood

README = page("README.md")
SHOWN = [line for line in commands(README) if "ingestkit" in line]
MADE = [line for line in commands(README) if line.startswith("make ")]


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_in_the_readme_is_one_the_program_understands(line: str) -> None:
    understood(line)


def test_what_is_no_command_is_not_understood() -> None:
    with pytest.raises(AssertionError, match="no command"):
        understood("ingestkit shovel opendata")
    with pytest.raises(Exception, match=r"(?i)no such option"):
        understood("ingestkit run opendata --wrong")
    with pytest.raises(Exception, match=r"(?i)missing parameter"):
        understood("ingestkit pause shop")


def test_commands_in_the_midst_of_a_sentence_exist() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    said = {" ".join(one.split()) for one in re.findall(r"`ingestkit ([^`]+)`", prose)}
    known = every_command()
    for words in said - {"COMMAND --help"}:
        assert any(words == name or words.startswith(f"{name} ") for name in known), words


def test_the_table_of_commands_is_what_help_says() -> None:
    helps = {f"`ingestkit {name}`": " ".join(one.help.split()) for name, one in every_command().items()}
    assert table(README, "command") == [[name, said] for name, said in helps.items()]


def test_the_table_of_queries_is_what_their_files_say() -> None:
    known = queries.known(Path("nowhere")).values()
    assert table(README, "query") == [[f"`{one.name}`", one.shows] for one in known]


def test_a_query_of_ones_own_is_asked_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [said] = [block.text for block in below(README, "Questions to the state") if block.language == "sql"]
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "sql" / "ops").mkdir(parents=True)
    (tmp_path / "sql" / "ops" / "by-hand.sql").write_text(said)
    monkeypatch.chdir(tmp_path)
    assert call(["query", "by-hand"]) == 0
    assert capsys.readouterr().out == "no rows\n"


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


def without_times(text: str) -> list[str]:
    """The lines without how long things took, and without the room that took."""
    return [re.sub(r" +\S+ m?s$", " TIME", " ".join(line.split())) for line in text.strip().splitlines()]


def test_the_defaults_of_a_pipeline_are_what_the_readme_says() -> None:
    files = {block.text.split("\n", 1)[0]: yaml.safe_load(block.text) for block in blocks(README) if is_yaml(block)}
    shop, defaults = files["# config/pipelines/shop.yaml"], files["# defaults"]
    said = {**shop, **defaults, "source": {**shop["source"], **defaults["source"]}}
    assert PipelineSettings.model_validate(said) == PipelineSettings.model_validate(shop)
    assert PipelineSettings.model_validate({**said, "publish": "model"}) != PipelineSettings.model_validate(shop)


def test_the_defaults_of_a_text_file_are_what_the_readme_says() -> None:
    [said] = [yaml.safe_load(block.text) for block in blocks(README) if block.text.startswith("# defaults of a model")]
    assert set(said["csv"]) == set(Dialect.model_fields)
    assert Dialect.model_validate(said["csv"]) == Dialect()


def test_every_code_of_a_record_that_cannot_be_read_is_in_the_readme() -> None:
    assert all(f"| `{code}` |" in README for code in (*MESSAGES, "encoding", "columns"))


def is_yaml(block: Block) -> bool:
    return block.language == "yaml"


def test_the_readme_is_the_packages_long_description() -> None:
    assert tomllib.loads(page("pyproject.toml"))["project"]["readme"] == "README.md"
