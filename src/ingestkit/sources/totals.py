"""Reports of an export: which speak of a file or archive, and how many records they say there are of what."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ingestkit.errors import SourceError
from ingestkit.files import shown
from ingestkit.model import Announced
from ingestkit.sources.arrival import Beside
from ingestkit.sources.naming import Claims, claimants

LARGEST = 1 << 20
"""A report that is larger is none."""
MOST = 15
"""So many digits a number may have."""


def reports_on(path: str, folder: str, beside: Beside, members: Iterable[str]) -> dict[str, str]:
    """The reports on a file or archive that are there, and what each is of: it alone, or all that the folder holds."""
    found = {f"{path}!{name}": path for name in members if beside.is_report_within(path, name)}
    report = beside.report_of(path, folder)
    if report is not None and report in beside.paths:
        found[report] = path if "{" in (beside.report or "") else folder
    return found


def announced(report: str, of: str, counts: Mapping[str, int], claims: Claims, *, full: bool | None) -> Announced:
    """What a report says, each entity of the model that would claim a file of its name."""
    claiming = {
        entity: claimants(claims, f"{report}!{entity}", f"{entity}.csv") for entity in counts if "/" not in entity
    }
    return Announced(report, of, counts, {entity: models[0] for entity, models in claiming.items() if models}, full)


def read(report: str, content: bytes, kind: type[SourceError]) -> Any:
    """What a report holds; what is no report is an error of that kind."""
    if len(content) > LARGEST:
        raise _no_report(report, f"it has more than {LARGEST:,} bytes", kind)
    try:
        return json.loads(content, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise _no_report(report, "it is no JSON, or says something twice", kind) from error


def counts_in(report: str, document: Any, at: str, kind: type[SourceError]) -> dict[str, int]:
    """The numbers of a report by name, which stand `at` a place in it; another document is an error of that kind."""
    found = _at(document, at)
    if not isinstance(found, dict):
        raise _no_report(report, f"it has no numbers by name at {at}", kind)
    return {entity: _count(report, entity, value, kind) for entity, value in found.items()}


def full_in(report: str, document: Any, at: str | None, kind: type[SourceError]) -> bool | None:
    """Whether a report is of all there is, as it says `at` a place; another document is an error of that kind."""
    if at is None:
        return None
    said = str(_at(document, at)).lower()
    if said not in ("true", "false"):
        raise _no_report(report, f"it says neither true nor false at {at}", kind)
    return said == "true"


def _at(document: Any, place: str) -> Any:
    for name in place.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    for name in found:
        # Half a character is none: it could neither be stored nor shown.
        name.encode()
    return found


def _count(report: str, entity: str, value: object, kind: type[SourceError]) -> int:
    """Some write numbers as texts."""
    said = str(value) if isinstance(value, int | str) else ""
    if not (said.isascii() and said.isdecimal() and len(said) <= MOST):
        raise _no_report(report, f"what it says of {shown(entity)} is no count", kind)
    return int(said)


def _no_report(report: str, why: str, kind: type[SourceError]) -> SourceError:
    return kind(
        f"{shown(report)} is no report of counts: {why}",
        hint="have it delivered again, or let source.totals say how it is written",
    )
