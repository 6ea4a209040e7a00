"""`ingestkit config`: what the settings are, where they came from, and whether they are right."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestkit.cli import opening, render
from ingestkit.cli.options import Output, OutputFormat
from ingestkit.errors import ConfigError

app = typer.Typer(help="Look at the configuration, and check it.", no_args_is_help=True)


@app.command()
def show(
    ctx: typer.Context,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", metavar="PIPELINE", help="A pipeline's settings, not the project's.")
    ] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value came from.")] = False,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Show the settings as files, profile, environment and flags make them; secrets as references."""
    rows: list[dict[str, Any]] = [
        {"key": one.key, "value": one.value, "layer": one.layer, "place": one.place}
        for one in opening.project_of(ctx).explained(pipeline)
    ]
    if output is Output.TEXT:
        rows = [{**row, "value": _written(row["value"])} for row in rows]
    columns = ("key", "value", "layer", "place") if origin else ("key", "value")
    render.emit(rows if origin else [{name: row[name] for name in columns} for row in rows], output, columns=columns)


@app.command()
def validate(ctx: typer.Context, output: OutputFormat = Output.TEXT) -> None:
    """Check every file of the configuration, without opening anything: one line each, and one per problem."""
    from ingestkit import project

    said = opening.globals_of(ctx)
    root = project.find(said.project or Path.cwd())
    env_file = Path(os.devnull) if said.no_env_file else said.env_file
    found = project.examined(root, said.profile, env_file, os.environ)
    rows = [
        {"file": one.subject, "status": "failed" if one.problems else "ok", "problems": list(one.problems)}
        for one in found
    ]
    render.emit(rows, output, columns=("file", "status"))
    problems = [problem for one in found for problem in one.problems]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)), hint="put them right, then: ingestkit config validate")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
