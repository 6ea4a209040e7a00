"""`run`: every waiting batch, through all stages."""

from typing import TYPE_CHECKING, Annotated

import typer

from ingestkit.cli import opening, options, plan
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

if TYPE_CHECKING:
    from ingestkit.working import RunOptions


def _kind_of_trial(value: str | None) -> str | None:
    if value not in (None, "plan", "data"):
        raise typer.BadParameter(f"{value!r} is none of plan, data")
    return value


Limit = Annotated[
    int | None, typer.Option("--limit", metavar="BATCHES", min=1, help="At most so many batches.", show_envvar=False)
]

DryRun = Annotated[
    str | None,
    typer.Option(
        "--dry-run",
        metavar="[=data]",
        callback=_kind_of_trial,
        help="Only show what would be taken; with =data also extract, validate and judge it, in scratch.",
        show_envvar=False,
    ),
]
Wait = Annotated[
    str | None,
    typer.Option(
        "--wait",
        metavar="30m",
        callback=options.duration_said,
        help="Where nothing waits, look again for so long, holding nothing meanwhile.",
        show_envvar=False,
    ),
]
Every = Annotated[
    str | None,
    typer.Option(
        "--every",
        metavar="30s",
        callback=options.duration_said,
        help="With --wait: how long between two looks; else 30s.",
        show_envvar=False,
    ),
]
FullRefresh = Annotated[
    bool,
    typer.Option(
        "--full-refresh",
        help="Of a Vault: begin again with the newest full archive, which takes the place of all rows.",
        show_envvar=False,
    ),
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", min=1, help="With --dry-run=data: at most so many records of each file.", show_envvar=False),
]


def run(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    model: options.Models = None,
    batch: options.Batch = None,
    limit: Limit = None,
    take_over: options.TakeOver = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    wait: Wait = None,
    every: Every = None,
    full_refresh: FullRefresh = False,
    skip_exit_code: options.SkipExitCode = None,
    dry_run: DryRun = None,
    rows: Rows = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Take every waiting batch from the source to the target, oldest first."""
    if rows is not None and dry_run != "data":
        raise UsageError("--rows is of a rehearsal", hint="--dry-run=data --rows 1000")
    if every is not None and wait is None:
        raise UsageError("--every is of a run that waits", hint="--wait 30m --every 30s")
    if every is not None and not float(every.rstrip("msdhw")):
        raise UsageError("--every 0 would look without a pause", hint="--every 30s")
    if wait is not None and dry_run is not None:
        raise UsageError("what is only tried does not wait for anything: --dry-run or --wait")
    if full_refresh and (dry_run is not None or batch is not None):
        raise UsageError("--full-refresh begins with the newest full archive, and is not tried: leave out the other")
    from ingestkit import decide, runner, waiting
    from ingestkit.settings import duration
    from ingestkit.working import RunOptions

    wanted = RunOptions(
        models=tuple(model or ()),
        batch=batch,
        run_id=run_id,
        limit=limit,
        take_over=take_over,
        if_locked=if_locked,
    )
    if dry_run is not None:
        return _tried(ctx, pipeline, wanted, dry_run, rows, jobs, skip_exit_code, output)
    with opening.working(ctx, pipeline, run_id=run_id, jobs=jobs) as session:
        if full_refresh:
            decide.begin_with_the_newest(session, opening.who(None))
        if wait is None:
            outcome = runner.run(session, wanted)
        else:
            outcome = waiting.run_waiting(session, wanted, duration(wait), duration(every or "30s"))
    return opening.ended(ctx, outcome, output, skip_exit_code)


def _tried(
    ctx: typer.Context,
    pipeline: str | None,
    wanted: "RunOptions",
    kind: str,
    rows: int | None,
    jobs: int | None,
    skip_exit_code: int | None,
    output: Output,
) -> int:
    from ingestkit import planning, rehearsing

    with opening.rehearsing(ctx, pipeline, jobs, writes=kind != "plan") as session:
        if kind == "plan":
            return plan.ended(ctx, planning.plan(session, wanted), output, skip_exit_code)
        outcome = rehearsing.rehearse(session, wanted, rows)
    return opening.ended(ctx, outcome, output)
