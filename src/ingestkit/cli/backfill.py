"""`backfill`: a batch that was done, once more."""

from typing import TYPE_CHECKING, Annotated

import typer

from ingestkit.cli import completing, opening, options, plan
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

if TYPE_CHECKING:
    from ingestkit.working import RunOptions

FromLake = Annotated[
    bool, typer.Option("--from-lake", help="Take the files from the lake; the source is not asked.", show_envvar=False)
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="BATCH",
        help="Every done batch from this one on, oldest first; windows by where they begin.",
        show_envvar=False,
        autocompletion=completing.batches,
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="BATCH",
        help="Up to, and without, this one; a window that begins before it is done whole.",
        show_envvar=False,
        autocompletion=completing.batches,
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="With the files as they were known at that time (UTC), from the lake; needs --reason.",
        show_envvar=False,
    ),
]
Reason = Annotated[str | None, typer.Option("--reason", help="With --as-of: why; kept for good.", show_envvar=False)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be done again; nothing is written.", show_envvar=False)
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with a range that was cut short or partly failed.", show_envvar=False),
]


def backfill(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    batch: options.Batch = None,
    since: From = None,
    until: To = None,
    model: options.Models = None,
    from_lake: FromLake = False,
    as_of: AsOf = None,
    reason: Reason = None,
    by: options.By = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Do a batch, or a range of them, again; what a newer batch has said stands. With --from-lake alone: publish what
    the target lacks.
    """
    ranged = since is not None or until is not None
    _refuse_unclear(run_id=run_id, batch=batch, ranged=ranged, from_lake=from_lake, resume=resume)
    if (as_of is None) != (reason is None):
        raise UsageError("what is put back as it was is a decision: --as-of and --reason come together")
    if as_of is not None and not (ranged or run_id or batch):
        raise UsageError("which batch as of then?", hint="--batch BATCH, or --from BATCH --to BATCH")
    from ingestkit import backfill_range, backfilling
    from ingestkit.working import RunOptions

    wanted = RunOptions(
        models=tuple(model or ()),
        batch=batch,
        run_id=run_id,
        since=since,
        until=until,
        resume=resume,
        from_lake=from_lake,
        as_of=opening.past(as_of, "--as-of"),
        reason=reason or "",
        by=opening.who(by),
        if_locked=if_locked,
    )
    if dry_run:
        return _planned(ctx, pipeline, wanted, output)
    doing = backfill_range.backfill_range if ranged else backfilling.backfill
    with opening.working(ctx, pipeline, run_id=None if ranged else run_id, jobs=jobs) as session:
        outcome = doing(session, wanted)
    return opening.ended(ctx, outcome, output)


def _planned(ctx: typer.Context, pipeline: str | None, wanted: "RunOptions", output: Output) -> int:
    from ingestkit import backfill_plan

    with opening.rehearsing(ctx, pipeline) as session:
        found = backfill_plan.plan_backfill(session, wanted)
    return plan.ended(ctx, found, output, None)


def _refuse_unclear(*, run_id: str | None, batch: str | None, ranged: bool, from_lake: bool, resume: bool) -> None:
    if resume and not ranged:
        raise UsageError("--resume is of a range", hint="say it as it was begun: --from BATCH --to BATCH --resume")
    if ranged and batch is not None:
        raise UsageError("one batch or a range: --batch, or --from and --to")
    if ranged or (run_id is None) != (batch is None) or (from_lake and batch is None):
        return
    raise UsageError(
        "a backfill needs --batch, --run-id, or --from and --to; with --from-lake alone it builds the target again",
        hint="ingestkit runs list",
    )
