"""The pages beside the code, as tests read them: their sections, fenced blocks and commands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FOR_USERS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences, and the heading above it."""

    heading: str
    language: str
    text: str


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> Iterator[Block]:
    fenced = list(FENCED.finditer(text))
    inside = [range(one.start(), one.end()) for one in fenced]
    headings = [one for one in HEADING.finditer(text) if not any(one.start() in span for span in inside)]
    for one in fenced:
        above = [heading[1] for heading in headings if heading.start() < one.start()]
        yield Block(above[-1] if above else "", one[1], one[2])


def prose(text: str) -> str:
    """What stands outside the fences."""
    return FENCED.sub("", text)


def commands(text: str) -> Iterator[str]:
    """Every line of the shell blocks, and what follows a prompt in the others."""
    for block in blocks(text):
        yield from lines_of(block)


def lines_of(block: Block) -> Iterator[str]:
    for line in block.text.splitlines():
        if block.language == "sh" or line.startswith("$ "):
            yield line.removeprefix("$ ")


def below(text: str, heading: str) -> list[Block]:
    """The blocks right below one heading; there must be some."""
    found = [block for block in blocks(text) if block.heading == heading]
    assert found, f"no block below {heading!r}"
    return found


def typed_below(text: str, heading: str) -> list[str]:
    """The commands right below one heading, in their order."""
    return [line for block in below(text, heading) for line in lines_of(block)]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the table whose first column is headed so."""
    lines = text.splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(f"| {heading} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows
