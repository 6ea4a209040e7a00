"""`config`: what the settings are, where they came from, whether they are right, and what editors should know."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import ConfigError, UsageError

Named = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        metavar="PIPELINE",
        help="A pipeline's settings, not the project's.",
        show_envvar=False,
        autocompletion=completing.pipelines,
    ),
]
Origin = Annotated[bool, typer.Option("--origin", help="Also say where each value came from.", show_envvar=False)]


def commands() -> typer.Typer:
    app = typer.Typer(help="Show the configuration, and check it.")
    app.command("show")(show)
    app.command("validate")(validate)
    app.command("schema")(schema)
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
        opening.answered(ctx)
        raise ConfigError("\n".join(problems), hint="put it right, then again: ingestkit config validate")


def schema(
    ctx: typer.Context,
    *,
    kind: Annotated[
        str | None, typer.Argument(metavar="settings|pipeline", help="Which file; with --output-dir else both.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--output-dir", metavar="DIR", help="Write them there as files.", show_envvar=False)
    ] = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Tell editors what may stand in a file of the configuration: its JSON Schema."""
    from ingestkit import files, schemas

    if kind is not None and kind not in schemas.KINDS:
        raise UsageError(f"there is no schema {kind!r}; there are {', '.join(schemas.KINDS)}")
    if folder is None:
        if kind is None:
            raise UsageError(
                f"say which schema: {' or '.join(schemas.KINDS)}",
                hint="both as files: ingestkit config schema --output-dir config/schemas",
            )
        told = schemas.KINDS[kind]()
        render.write(f"{json.dumps(told, indent=2)}\n" if output is Output.TEXT else render.json_text(told, output))
        return
    rows = []
    for name in [kind] if kind else schemas.KINDS:
        path = folder / f"{name}.schema.json"
        with opening.writing(path):
            files.replace_whole(path, f"{json.dumps(schemas.KINDS[name](), indent=2)}\n".encode())
        rows.append({"file": str(path), "first_line": _editor_line(ctx, name, path)})
    render.emit(rows, output)


def _editor_line(ctx: typer.Context, kind: str, schema: Path) -> str:
    """The line at the top of a file that says to editors where its schema is."""
    from ingestkit import project

    try:
        root = project.find(opening.globals_of(ctx).project or Path.cwd())
    except ConfigError:
        # Outside a project nothing is known of where its files will be.
        place = str(schema.absolute())
    else:
        stands = root / "config" / ("pipelines" if kind == "pipeline" else "")
        place = os.path.relpath(schema.absolute(), stands)
    return f"# yaml-language-server: $schema={place}"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
