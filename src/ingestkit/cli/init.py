"""`init`: a folder made a project that runs."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ingestkit.cli import handler, opening, options, render
from ingestkit.cli.options import Output


def init(
    ctx: typer.Context,
    *,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The folder, made where it is missing; else this one.")
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="Settings alone, without the sample pipeline.", show_envvar=False)
    ] = False,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Write a project that runs: settings, a sample pipeline with its files, and what belongs beside them."""
    from ingestkit import scaffolding

    said = opening.globals_of(ctx)
    chosen = folder or said.project or Path()
    with opening.writing(chosen):
        laid = scaffolding.lay_out(chosen, sample=not empty)
    enter = "" if chosen.absolute() == Path.cwd() else f"cd {shlex.quote(str(chosen))} && "
    then = f"{enter}ingestkit run opendata" if not empty else f"{enter}ingestkit new pipeline NAME --from-file SAMPLE"
    shown = {
        "folder": str(chosen.absolute()),
        "files": [str(one) for one in laid.written],
        "there_already": [str(one) for one in laid.there],
        "next": then,
    }
    if output is not Output.TEXT:
        render.emit({**shown, "unignored": laid.unignored}, output)
    else:
        kept = f", {len(laid.there)} were there already" if laid.there else ""
        render.emit({"folder": shown["folder"], "files": f"{len(laid.written)} written{kept}", "next": then}, output)
    if laid.unignored:
        lines = ", ".join(laid.unignored)
        handler.report(f"{chosen / '.gitignore'} is left as it is, and lacks {lines}", said, kind="warning")
