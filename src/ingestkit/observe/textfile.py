"""Figures in a file for Prometheus: what node_exporter's textfile collector reads, always whole."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from ingestkit.errors import TargetError
from ingestkit.files import replace_whole
from ingestkit.ports import Measure, Span

UNITS = {"s": "_seconds", "By": "_bytes", "": ""}


@dataclass(frozen=True, slots=True)
class Textfile:
    """One file per pipeline. It says what the state says, whoever died before he could write it."""

    path: Path

    # What a file cannot show is left out: samples have no time of their own there, and spans no place.
    def tell(self, at: datetime, measures: Sequence[Measure], spans: Sequence[Span]) -> None:  # noqa: ARG002
        try:
            replace_whole(self.path, drawn(measures).encode())
        except OSError as error:
            raise TargetError(f"{self.path} cannot be written: {error.strerror}") from error


def opened(folder: Path, pipeline: str) -> Textfile:
    return Textfile(folder / f"ingestkit_{pipeline}.prom")


def drawn(measures: Sequence[Measure]) -> str:
    """The text format 0.0.4: a family's samples stand together, below what it is."""
    return "".join(_lines(measures))


def _lines(measures: Sequence[Measure]) -> Iterator[str]:
    for name, family in groupby(sorted(measures, key=_name), _name):
        several = list(family)
        kind = "counter" if several[0].kind == "total" else "gauge"
        yield f"# HELP {name} {_escaped(several[0].shows)}\n# TYPE {name} {kind}\n"
        for one in several:
            yield f"{name}{{{_labels(one.tags)}}} {_figure(one.value)}\n"


def _name(one: Measure) -> str:
    unit = "_timestamp_seconds" if one.kind == "moment" else UNITS[one.unit]
    return f"ingestkit_{one.name.replace('.', '_')}{unit}{'_total' if one.kind == 'total' else ''}"


def _labels(tags: Mapping[str, str]) -> str:
    return ",".join(f'{re.sub("[^a-zA-Z0-9_]", "_", name)}="{_quoted(value)}"' for name, value in tags.items())


def _figure(value: float | datetime) -> str:
    figure = value.timestamp() if isinstance(value, datetime) else value
    return repr(round(figure, 6))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
