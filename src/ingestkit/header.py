"""A file's header beside its contract, by name: what is missing, extra, renamed, doubled or in another order."""

import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ingestkit.contract import Contract
from ingestkit.errors import ContractError
from ingestkit.files import shown
from ingestkit.model import Drift
from ingestkit.settings import FLAG, LINE, LINEAGE, Model

ALIKE = 0.75
"""How much of two names must be the same for one to be the other, renamed."""
QUOTES = ('"', "'")
LABEL = re.compile(r"(?<=\S)\s+\([^()]*\)$")


@dataclass(frozen=True, slots=True)
class Compared:
    """A header as it is read: its names as the contract has them, and the columns it adds to the target."""

    names: tuple[str, ...]
    extra: tuple[str, ...]
    drift: tuple[Drift, ...]


class HeaderBroken(ContractError):
    """A header that its contract does not cover; its drift is recorded although nothing of the file is read."""

    def __init__(self, message: str, *, hint: str, drift: tuple[Drift, ...]) -> None:
        super().__init__(message, hint=hint)
        self.drift = drift


@dataclass(slots=True)
class Findings:
    """What was found while a header was compared."""

    model: str
    file_id: str
    drift: list[Drift] = field(default_factory=list)
    fatal: list[str] = field(default_factory=list)

    def note(self, kind: str, column: str, expected: str | None, found: str | None, action: str) -> None:
        self.drift.append(Drift(self.model, self.file_id, kind, column, expected, found, action))

    def fail(self, kind: str, column: str, expected: str | None, found: str | None, told: str) -> None:
        self.note(kind, column, expected, found, "fail")
        self.fatal.append(told)


def compare_header(contract: Contract, settings: Model, path: str, file_id: str, names: Sequence[str]) -> Compared:
    """Compare a header with the contract. What cannot be read through is a HeaderBroken."""
    folded = folding(settings, contract.model)
    known = {folded(column.name): column.name for column in contract.columns}
    found = Findings(contract.model, file_id)
    if names and not any(folded(name) in known for name in names):
        raise _foreign(contract, settings, path, found, names)
    read = tuple(known.get(folded(name), _plain(name, settings, contract.model)) for name in names)
    _doubled(found, names, folded)
    expected = [column.name for column in contract.columns]
    missing = [name for name in expected if name not in read]
    extra = [name for name in dict.fromkeys(read) if name not in expected]
    renamed = _renamed(expected, read, missing, extra)
    for old, new in renamed.items():
        found.fail("renamed", old, old, new, f"{old!r} seems to be called {new!r}")
    for column in contract.columns:
        if column.name in missing and column.name not in renamed:
            if column.required:
                found.fail("missing", column.name, column.type, None, f"{column.name!r} is missing")
            else:
                found.note("missing", column.name, column.type, None, "null")
    added = [name for name in extra if name not in renamed.values()]
    _extra(found, settings, added, expected)
    if not found.drift and list(read) != expected:
        found.note("reordered", "*", ", ".join(expected), ", ".join(names), "by name")
    if found.fatal:
        raise HeaderBroken(
            f"{shown(path)} has another header than model {contract.model}: {'; '.join(found.fatal)} "
            f"(expected {', '.join(expected)}; found {', '.join(names)})",
            hint=f"ingestkit manifest show --path {shlex.quote(shown(path))}",
            drift=tuple(found.drift),
        )
    return Compared(read, tuple(added) if settings.drift == "evolve" else (), tuple(found.drift))


def _foreign(contract: Contract, settings: Model, path: str, found: Findings, names: Sequence[str]) -> HeaderBroken:
    """A header of which the contract knows no name may be a record, and what is in a record is nobody's to see."""
    expected = ", ".join(column.name for column in contract.columns)
    found.note("missing", "*", expected, f"{len(names)} other names", "fail")
    why = "it may be a record; see csv.header and csv.delimiter"
    if (quote := _otherwise_quoted(settings, contract.model, names)) is not None:
        why = f"{quote} stands around them, and csv.quote is {settings.csv.quote}"
    return HeaderBroken(
        f"{shown(path)} has none of the columns of model {contract.model} in its header of {len(names)} "
        f"(expected {expected}): {why}",
        hint=f"ingestkit manifest show --path {shlex.quote(shown(path))}",
        drift=tuple(found.drift),
    )


def _otherwise_quoted(settings: Model, model: str, names: Sequence[str]) -> str | None:
    """The character that stands around names which the contract would know without it."""
    folded = folding(settings, model)
    known = {folded(name) for name in settings.columns}
    for quote in QUOTES:
        bare = (name[1:-1] for name in names if name[:1] == name[-1:] == quote)
        if quote != settings.csv.quote and known & {folded(name) for name in bare}:
            return quote
    return None


def _plain(name: str, settings: Model, model: str) -> str:
    """How a name in no contract is written, so that files that differ in its spaces or its label add one column."""
    if settings.header.style == "report":
        name = _without_label(name, (model, *settings.names))
    return re.sub(r"[\s_]+", "_", name.strip()) if settings.header.spaces == "ignore" else name


def _without_label(name: str, models: Sequence[str]) -> str:
    """What a report calls `hcp.vid__v (VID)`. A column of another model keeps that before its name."""
    name = LABEL.sub("", name.strip())
    model, dot, column = name.partition(".")
    return column if dot and model.strip().casefold() in {one.casefold() for one in models} else name


def folding(settings: Model, model: str) -> Callable[[str], str]:
    """How names are written before they are compared."""

    def folded(name: str) -> str:
        name = _plain(name, settings, model)
        return name.casefold() if settings.header.case == "ignore" else name

    return folded


def _doubled(found: Findings, names: Sequence[str], folded: Callable[[str], str]) -> None:
    """A name that stands twice, however it is written, says of no value which one it is."""
    seen: dict[str, list[str]] = {}
    for name in names:
        seen.setdefault(folded(name), []).append(name)
    for same in seen.values():
        if len(same) > 1:
            found.fail("duplicate", same[0], "once", f"{len(same)} times", f"{same[0]!r} stands {len(same)} times")


def _renamed(
    expected: Sequence[str], read: Sequence[str], missing: Sequence[str], extra: Sequence[str]
) -> Mapping[str, str]:
    """Missing columns that an extra one seems to be: one in the same place, or one whose name is nearly the same."""
    pairs: dict[str, str] = {}
    left = list(extra)
    for name in missing:
        place = expected.index(name)
        here = read[place] if len(read) == len(expected) and read[place] in left else None
        near = difflib.get_close_matches(name.lower(), [one.lower() for one in left], 1, ALIKE)
        match = here or next((one for one in left if one.lower() in near), None)
        if match is not None:
            pairs[name] = match
            left.remove(match)
    return pairs


def _extra(found: Findings, settings: Model, added: Sequence[str], expected: Sequence[str]) -> None:
    """Columns in no contract, by the model's policy."""
    taken = {name.casefold() for name in (*expected, *LINEAGE, LINE, *([FLAG] if settings.flag_when else []))}
    for name in added:
        if settings.drift == "freeze":
            found.fail("extra", name, None, name, f"{name!r} is in no contract")
        elif settings.drift == "ignore":
            found.note("extra", name, None, name, "left out")
        elif not name.strip() or name.casefold() in taken:
            found.fail("extra", name, None, name, f"{name!r} cannot be added: it has no name of its own")
        else:
            taken.add(name.casefold())
            found.note("extra", name, None, name, "added")
