"""`state`: what a pipeline's state says, and the verbs that correct it."""

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
    app.command("upgrade")(upgrade)
    return app


def show(ctx: typer.Context, pipeline: options.PipelineName = None, output: options.OutputFormat = Output.TEXT) -> None:
    """Show checkpoint, floors, pins, holds, leases and open runs."""
    from ingestkit.mirroring import shown
    from ingestkit.states import views

    with opening.deciding(ctx, pipeline) as session:
        mirrored = shown(session)
        with session.state.read() as conn:
            found = {"checkpoint": mirrored["checkpoint"]} | views.state(conn, session.pipeline.name)
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


def upgrade(ctx: typer.Context, yes: options.Yes = False, output: options.OutputFormat = Output.TEXT) -> None:
    """Bring the state database to the version this ingestkit works with."""
    from ingestkit.states import migrate, tables

    opening.confirm_or_refuse("Change the tables of the state database? Nobody should be working on it.", yes=yes)
    migrate.upgrade(opening.state_url(opening.project_of(ctx)))
    render.emit({"status": "done", "version": tables.HEAD}, output)
