"""A pipeline's tables as sources of dbt, with the tests that hold of them by its contracts. Nothing is run here."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml

from ingestkit.errors import ConfigError
from ingestkit.model import LoadMode
from ingestkit.pipeline import Pipeline
from ingestkit.settings import Freshness, Model

MARK = "written by `ingestkit dbt sources"
"""What a file says that may be written over."""
PERIODS = (("day", 86400), ("hour", 3600), ("minute", 60))


@dataclass(frozen=True, slots=True)
class Target:
    """Where the tables are, as dbt is told."""

    schema: str
    database: str | None = None
    """Where the one that dbt's own profile says will not do."""
    upper: bool = False
    """Whether names are spelled there in upper case."""


def text(pipeline: Pipeline, target: Target) -> str:
    """The file of one pipeline, the same whenever its contracts are."""
    if pipeline.many:
        raise ConfigError(
            f"the tables of {pipeline.name} are known by its archives alone, and no contract says them",
            hint="write a source of dbt for those that are built on",
        )
    names = _Names(target.upper)
    source: dict[str, Any] = {"name": pipeline.name}
    if target.database is not None:
        source["database"] = names.inside(target.database)
    source["schema"] = names.inside(target.schema)
    source["quoting"] = {"database": True, "schema": True, "identifier": True}
    source["tables"] = [_table(pipeline, model, names) for model in pipeline.models]
    body = yaml.safe_dump({"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True, width=120, indent=2)
    heading = [f"# {MARK} {pipeline.name}`; when a contract changes, write it again.", *_unsaid(pipeline)]
    return "\n".join(heading) + "\n" + body


@dataclass(frozen=True, slots=True)
class _Names:
    """Names as dbt is to be told them: it puts quotes around them and doubles none, and takes braces for its own."""

    upper: bool

    def inside(self, name: str) -> str:
        return literal((name.upper() if self.upper else name).replace('"', '""'))

    def quoted(self, name: str) -> str:
        return f'"{self.inside(name)}"'


def literal(said: str) -> str:
    """A text that dbt's templates give back as it is."""
    return re.sub(r"\{[{%#]", lambda found: f"{{{{ '{found[0]}' }}}}", said)


def _table(pipeline: Pipeline, name: str, names: _Names) -> dict[str, Any]:
    model = pipeline.model(name)
    table: dict[str, Any] = {"name": name}
    if names.inside(pipeline.table(name)) != name:
        table["identifier"] = names.inside(pipeline.table(name))
    if model.gate.freshness is not None:
        table["config"] = _freshness(model, model.gate.freshness, names)
    table["columns"] = [_column(pipeline, model, column, names) for column in model.columns]
    return table


def _freshness(model: Model, asked: Freshness, names: _Names) -> dict[str, Any]:
    """As the gate judges it. dbt takes instants alone."""
    column = names.quoted(asked.column)
    dated = model.columns[asked.column].type == "date"
    field = f"cast({column} as timestamp)" if dated else column
    return {"loaded_at_field": field, "freshness": {"error_after": _age(asked.max_age)}}


def _age(longest: timedelta) -> dict[str, Any]:
    """In the longest of dbt's periods that says it; what is less than one of them is one."""
    seconds = longest.total_seconds()
    period, length = next((one for one in PERIODS if seconds and seconds % one[1] == 0), PERIODS[-1])
    return {"count": max(1, -int(-seconds // length)), "period": period}


def _column(pipeline: Pipeline, model: Model, name: str, names: _Names) -> dict[str, Any]:
    column: dict[str, Any] = {"name": names.inside(name), "quote": True}
    tests = list(_tests(pipeline, model, name, names))
    return column | {"data_tests": tests} if tests else column


def _tests(pipeline: Pipeline, model: Model, name: str, names: _Names) -> Iterator[str | Mapping[str, Any]]:
    said = model.columns[name]
    if said.required or name in model.key:
        yield "not_null"
    if _is_unique(model, name):
        yield "unique"
    if said.enum is not None:
        yield {"accepted_values": {"arguments": _accepted(said.type, said.enum)}}
    if said.references is not None:
        other, _, column = said.references.partition(".")
        to = {"to": f"source('{pipeline.name}', '{other}')", "field": names.quoted(column)}
        yield {"relationships": {"arguments": to}}


def _accepted(kind: str, values: Iterable[str]) -> dict[str, Any]:
    if kind == "integer":
        return {"values": [int(one) for one in values], "quote": False}
    # They are put between quotes as they are.
    return {"values": [literal(one.replace("'", "''")) for one in values]}


def _is_unique(model: Model, name: str) -> bool:
    """Whether the whole table holds each value once. Of other loads each batch does, and the table may not."""
    if model.load is LoadMode.REPLACE and not model.takes_changes and model.columns[name].unique:
        return True
    return model.key == (name,) and model.load in (LoadMode.REPLACE, LoadMode.MERGE)


def _unsaid(pipeline: Pipeline) -> Iterator[str]:
    """What is not tested of which models, and why."""
    models = {name: pipeline.model(name) for name in pipeline.models}
    ageless = [name for name, model in models.items() if model.gate.freshness is None]
    if ageless:
        yield f"# Without freshness, since their gate says none: {', '.join(ageless)}."
    composed = [name for name, model in models.items() if len(model.key) > 1]
    if composed:
        yield f"# Their key is of several columns, which dbt has no test for: {', '.join(composed)}."
