"""In which folders the lake keeps what is of a batch: a template, whether it is one, and what it makes of a batch.

What stands before the folders (`raw/<pipeline>/`) and the names in them, which no two objects share, is not its to say.
"""

import difflib
import re
from string import Formatter

from ingestkit.model import safe_name

DEFAULT = "{model}/{batch}"
NEEDED = ("model", "batch")
"""Without both, what is of one batch could not be told from what is of another."""
OF_DATES = ("year", "month", "day")
"""Taken from keys of batches that are dates."""
KNOWN = (*NEEDED, *OF_DATES)
TOLD = "known are " + ", ".join(f"{{{name}}}" for name in KNOWN)
LITERAL = re.compile(r"[A-Za-z0-9._=-]*")
LONGEST = 200


def refusal(template: str) -> str | None:
    """What is wrong with a template, if anything."""
    parts = template.split("/")
    if len(template) > LONGEST or "" in parts:
        return f"should be folders with a / between them, of {LONGEST} characters at most, such as {DEFAULT}"
    try:
        told = [fields(part) for part in parts]
    except ValueError as error:
        return f"{template!r} cannot be read: {error}"
    for part, named in zip(parts, told, strict=True):
        if (wrong := _wrong(part, named)) is not None:
            return wrong
    for field in NEEDED:
        if [name for named in told for name in named].count(field) != 1:
            return f"should have {{{field}}} once"
    return None


def folder(template: str, model: str, batch: str) -> str:
    """The folder of a batch of a model, below that of its pipeline."""
    year, month, day = batch[:4], batch[5:7], batch[8:10]
    return template.format(model=model, batch=safe_name(batch), year=year, month=month, day=day)


def fields(text: str) -> list[str]:
    """The names in braces; ValueError where braces are not closed, or say how to write a value."""
    found = []
    for _, name, form, conversion in Formatter().parse(text):
        if name is None:
            continue
        if form or conversion:
            raise ValueError(f"{{{name}}} is all that may be said of a field")
        found.append(name)
    return found


def _wrong(part: str, named: list[str]) -> str | None:
    for name in named:
        if name not in KNOWN:
            close = difflib.get_close_matches(name, KNOWN, n=1)
            return f"there is no field {{{name}}}; " + (f"did you mean {{{close[0]}}}?" if close else TOLD)
        if name in NEEDED and len(named) > 1:
            # Two names beside each other could be those of another batch, cut elsewhere.
            return f"{{{name}}} should be the only field of its folder"
    if "model" in named and re.search(r"[A-Za-z0-9]\{model\}", part):
        # What stands there for files of no model would be the end of another word.
        return "{model} should not follow a letter or digit"
    literal = "".join(text for text, *_ in Formatter().parse(part))
    if LITERAL.fullmatch(literal) is None or (not named and not literal.strip(".")):
        return f"{part!r} is no name of a folder: letters, digits and . _ = - besides fields"
    return None
