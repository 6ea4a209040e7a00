"""`config`: what the settings are, where they came from, and whether they are right."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import ConfigError

Named = Annotated[
    str | None,
    typer.Option("--pipeline", metavar="PIPELINE", help="A pipeline's settings, not the project's.", show_envvar=False),
]
Origin = Annotated[bool, typer.Option("--origin", help="Also say where each value came from.", show_envvar=False)]


def commands() -> typer.Typer:
    app = typer.Typer(help="Show the configuration, and check it.")
    app.command("show")(show)
    app.command("validate")(validate)
    return app


def show(
    ctx: typer.Context, pipeline: Named = None, origin: Origin = False, output: options.OutputFormat = Output.TEXT
) -> None:
    """Show the settings as file, profile, environment and flags make them; secrets as references."""
    columns = ("key", "value", "layer", "place") if origin else ("key", "value")
    found = opening.project_of(ctx).explained(pipeline)
    rows = [{name: getattr(one, name) for name in columns} for one in found]
    if output is Output.TEXT:
        rows = [{**row, "value": _written(row["value"])} for row in rows]
    render.emit(rows, output, columns=columns)


def validate(ctx: typer.Context, output: options.OutputFormat = Output.TEXT) -> None:
    """Check every file of the configuration without opening anything: one line each, and one per problem."""
    from ingestkit import project

    said = opening.globals_of(ctx)
    env_file = Path(os.devnull) if said.no_env_file else said.env_file
    found = project.examined(project.find(said.project or Path.cwd()), said.profile, env_file, os.environ)
    rows = [
        {"file": one.subject, "status": "failed" if one.problems else "ok", "problems": one.problems} for one in found
    ]
    render.emit(rows, output, columns=("file", "status"))
    problems = dict.fromkeys(problem for one in found for problem in one.problems)
    if problems:
        raise ConfigError("\n".join(problems), hint="put it right, then again: ingestkit config validate")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
