"""Command lines as the program understands them, without doing what they say."""

import shlex
from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from ingestkit.cli.main import COMMANDS, GROUPS, application, command
from ingestkit.cli.options import Globals


def every_command() -> dict[str, Any]:
    """Every command there is, by what is typed."""
    found = {name: command(name) for name in COMMANDS}
    for group in GROUPS:
        found |= _below(group, command(group))
    return found


def _below(name: str, group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word, one in group.commands.items():
        found |= _below(f"{name} {word}", one) if hasattr(one, "commands") else {f"{name} {word}": one}
    return found


def understood(line: str) -> str:
    """The command that a line calls; anything in it that is not known, or missing, is an error."""
    words = shlex.split(line)
    while "=" in words[0]:
        words.pop(0)
    assert words.pop(0) == "ingestkit", line
    top: Any = get_command(application())
    before: Any = top.make_context("ingestkit", words, obj=Globals())
    name, rest = split([*before._protected_args, *before.args])
    every_command()[name].make_context(name, rest, parent=before)
    return name


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """A command's name, of some words, and what follows it."""
    known = every_command()
    for length in (1, 2, 3):
        name = " ".join(words[:length])
        if name in known:
            return name, list(words[length:])
    raise AssertionError(f"no command {' '.join(words[:2])!r}")
