"""`query`: the operator's questions to the state, as SQL in files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

if TYPE_CHECKING:
    from ingestkit.states.queries import Query

COLUMNS = ("name", "shows", "parameters")


def query(
    ctx: typer.Context,
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="The query's name; without one, all are listed.", autocompletion=completing.queries
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            metavar="PIPELINE",
            help="Only of this pipeline.",
            show_envvar=False,
            autocompletion=completing.pipelines,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be given again.", show_envvar=False),
    ] = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Ask the state one of the queries of sql/ops, the project's or those that come with ingestkit."""
    said = _said(values or ())
    if pipeline is not None:
        said["pipeline"] = pipeline
    from ingestkit.pipeline import SystemClock
    from ingestkit.states import queries

    loaded = opening.project_of(ctx)
    if name is None:
        if said:
            raise UsageError("which query is to be asked?", hint="ingestkit query")
        listed = [_listed(one) for one in queries.known(loaded.root).values()]
        render.emit(listed, output, columns=COLUMNS)
        return
    with opening.state_of(loaded) as state:
        found = queries.find(loaded.root, name, state.dialect)
        with state.read() as conn:
            opening.require_pipeline(loaded, conn, pipeline)
            now = state.now(conn, SystemClock())
        rows = queries.asked(state, found, said, now)
    render.emit(rows, output, empty="no rows")


def _said(values: Sequence[str]) -> dict[str, str]:
    said = {}
    for value in values:
        name, is_set, text = value.partition("=")
        if not is_set or not name:
            raise UsageError(f"--set {value!r} is not of the form name=value", hint="ingestkit query")
        said[name] = text
    return said


def _listed(one: "Query") -> dict[str, Any]:
    parameters = [
        f"{parameter.name}={parameter.default}" if parameter.default is not None else parameter.name
        for parameter in one.parameters
    ]
    return {"name": one.name, "shows": one.shows, "parameters": parameters, "file": one.file}
