"""The map is of the country: ARCHITECTURE.md names what is there, and all of it."""

import re

from tests.docs.pages import ROOT, page

ARCHITECTURE = page("ARCHITECTURE.md")
SOURCES = ROOT / "src" / "ingestkit"
MODULES = {
    str(path.relative_to(SOURCES).with_suffix(""))
    for path in SOURCES.rglob("*.py")
    if path.name != "__init__.py" and "migrations" not in path.parts
}


def named(text: str) -> set[str]:
    return set(re.findall(r"`([\w/]+)`", text))


def section(heading: str) -> str:
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def test_the_map_fits_on_few_pages() -> None:
    assert len(ARCHITECTURE.splitlines()) < 150


def test_every_module_is_on_the_map() -> None:
    stems = {name.rsplit("/", 1)[-1] for name in named(section("Where things are"))}
    assert {module for module in MODULES if module.rsplit("/", 1)[-1] not in stems} == set()


def test_nothing_is_on_the_map_that_does_not_exist() -> None:
    stems = MODULES | {module.rsplit("/", 1)[-1] for module in MODULES}
    strangers = {
        name
        for name in named(section("Where things are"))
        if name not in stems
        and not (ROOT / name).is_dir()
        and not (SOURCES / name).is_dir()
        and not (SOURCES / "states" / name).is_dir()
    }
    assert strangers == set()


def test_what_must_stay_true_speaks_of_modules_there_are() -> None:
    stems = {module.rsplit("/", 1)[-1] for module in MODULES}
    said = named(section("What must stay true") + section("Where we turned from the obvious way, and why"))
    assert said - stems <= {"Work", "cli"}


def test_it_holds_neither_signatures_nor_line_numbers() -> None:
    assert not re.search(r"`\w+\(|\.py:\d+|\bline \d+", ARCHITECTURE)
