"""What holds for every page that users read: its commands can be typed, its links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import FOR_USERS, HEADING, ROOT, blocks, commands, lines_of, page, prose
from tests.docs.typed import every_command, split, understood

SHOWN = [(name, line) for name in FOR_USERS for line in commands(page(name)) if "ingestkit" in line]


@pytest.mark.parametrize(("name", "line"), SHOWN)
def test_a_command_that_is_shown_is_one_the_program_understands(name: str, line: str) -> None:
    understood(line)


def test_what_is_no_command_is_not_understood() -> None:
    with pytest.raises(AssertionError, match="no command"):
        understood("ingestkit shovel opendata")
    with pytest.raises(Exception, match=r"(?i)no such option"):
        understood("ingestkit run opendata --wrong")
    with pytest.raises(Exception, match=r"(?i)missing parameter"):
        understood("ingestkit pause shop")


@pytest.mark.parametrize("name", FOR_USERS)
def test_commands_in_the_midst_of_a_sentence_exist_with_their_options(name: str) -> None:
    known = every_command()
    for said in re.findall(r"`ingestkit ([^`]+)`", prose(page(name))):
        if said.startswith(("COMMAND", "--")):
            continue
        command, rest = split(said.split())
        options = {option for parameter in known[command].params for option in parameter.opts}
        assert {word.split("=")[0] for word in rest if word.startswith("--")} <= options, said


def test_every_section_with_commands_is_typed_by_a_test() -> None:
    """The tests name the sections they type; that all lines of one are typed is theirs to see to."""
    told = {
        node.value
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    shown = [one for name in FOR_USERS for one in blocks(page(name))]
    assert {one.heading for one in shown if any("ingestkit" in line for line in lines_of(one))} - told == set()


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", [*FOR_USERS, "ARCHITECTURE.md"])
def test_links_lead_to_pages_and_sections_there_are(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page(name))):
        path, _, section = target.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        assert there.is_file(), target
        if section:
            assert section in {anchor(one) for one in HEADING.findall(there.read_text(encoding="utf-8"))}, target


def test_every_page_is_in_the_readme_and_in_what_is_shipped() -> None:
    assert all(f"]({name})" in page("README.md") for name in FOR_USERS[1:])
    assert '"docs"' in page("pyproject.toml")
