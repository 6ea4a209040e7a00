"""`state`: what a pipeline's state says, and the verbs that correct it."""

from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output

TABLES = {"decisions": ("number", "kind", "subject", "reason", "by", "at")}


def commands() -> typer.Typer:
    app = typer.Typer(help="Show what the state knows, and correct it.")
    app.command("show")(show)
    app.command("set")(set_floor)
    app.command("reset")(reset)
    app.command("adopt")(adopt)
    app.command("export")(export)
    app.command("import")(import_)
    app.command("upgrade")(upgrade)
    return app


def show(ctx: typer.Context, pipeline: options.PipelineName = None, output: options.OutputFormat = Output.TEXT) -> None:
    """Show checkpoint, floors, pins, holds, leases and open runs."""
    from ingestkit.mirroring import shown
    from ingestkit.states import views

    with opening.deciding(ctx, pipeline) as session:
        mirrored = shown(session)
        with session.state.read() as conn:
            found = {"checkpoint": mirrored["checkpoint"]} | views.state(
                conn, session.pipeline.name, session.pipeline.order
            )
    for row in found["models"]:
        newest = mirrored["models"][row["model"]]
        row |= {name: newest[name] for name in ("batch", "status", "generation")}
    render.emit(render.picked(found, TABLES) if output is Output.TEXT else found, output)


def set_floor(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    batch: options.NamedBatch,
    reason: options.Reason,
    model: options.Models = None,
    by: options.By = None,
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Take every batch up to and including this one as done, without loading it."""
    which = ", ".join(model) if model else "all models"
    opening.confirm_or_refuse(f"Take {pipeline} as done up to {batch} ({which})?", yes=yes)
    from ingestkit import decide

    with opening.deciding(ctx, pipeline) as session:
        outcome = decide.set_floor(session, batch, tuple(model or ()), reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


def reset(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    reason: options.Reason,
    by: options.By = None,
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Forget what was done, so that every batch is loaded again."""
    opening.confirm_or_refuse(f"Reset {pipeline}, so that every batch is loaded again?", yes=yes)
    from ingestkit import decide

    with opening.deciding(ctx, pipeline) as session:
        outcome = decide.reset(session, reason, opening.who(by))
    return opening.ended(ctx, outcome, output)


def adopt(
    ctx: typer.Context,
    *,
    pipeline: options.NamedPipeline,
    reason: options.Reason,
    by: options.By = None,
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Make this state the owner of the target, and rebuild it from the lake and the receipts."""
    opening.require_answer(yes=yes)
    from ingestkit import adopt as adoption

    with opening.deciding(ctx, pipeline) as session:
        outcome = adoption.adopt(
            session, reason, opening.who(by), lambda question: opening.confirmed(question, yes=yes)
        )
    return opening.ended(ctx, outcome, output)


def export(
    ctx: typer.Context,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where to; else standard output.", show_envvar=False)
    ] = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Write the whole state, of all pipelines, as NDJSON: to keep it, or to import it into another database."""
    from datetime import UTC, datetime

    from ingestkit import files
    from ingestkit.states import transfer

    with closing(opening.project_of(ctx).state()) as state:
        lines = transfer.exported(state, datetime.now(UTC))
        if to is None:
            for line in lines:
                render.write(line)
            return
        written = count()
        with opening.writing(to):
            files.replace_in_blocks(to.absolute(), (line.encode() for line, _ in zip(lines, written, strict=False)))
    # Its first line and its last are no rows.
    render.emit({"rows": next(written) - 2, "file": to}, output)


def import_(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What was exported; - reads standard input.")],
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Put an exported state into the empty database that state.url names; the old one is used no more."""
    from ingestkit.states import transfer

    source = "standard input" if str(file) == "-" else str(file)
    with closing(opening.project_of(ctx).state()) as state:
        opening.confirm_or_refuse(
            f"Import {source} into {state.place}? Whoever goes on with the state it came from will be refused.", yes=yes
        )
        with opening.lines_of(file) as lines:
            counts = transfer.imported(state, lines, source)
    render.emit([{"table": name, "rows": count} for name, count in counts.items()], output)


def upgrade(ctx: typer.Context, yes: options.Yes = False, output: options.OutputFormat = Output.TEXT) -> None:
    """Bring the state database to the version this ingestkit works with."""
    from ingestkit.states import migrate, tables

    opening.confirm_or_refuse("Change the tables of the state database? Nobody should be working on it.", yes=yes)
    migrate.upgrade(opening.state_url(opening.project_of(ctx)))
    render.emit({"status": "done", "version": tables.HEAD}, output)
