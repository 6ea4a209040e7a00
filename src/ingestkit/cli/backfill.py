"""`backfill`: a batch that was done, once more."""

from typing import Annotated

import typer

from ingestkit.cli import opening, options
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

FromLake = Annotated[
    bool, typer.Option("--from-lake", help="Take the files from the lake; the source is not asked.", show_envvar=False)
]


def backfill(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    batch: options.Batch = None,
    model: options.Models = None,
    from_lake: FromLake = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Do a batch again; what a newer batch has said stands. With --from-lake alone: publish what the target lacks."""
    if (run_id is not None and batch is not None) or (run_id is None and batch is None and not from_lake):
        raise UsageError(
            "a backfill needs either --batch or --run-id; with --from-lake alone it builds the target again",
            hint="ingestkit runs list",
        )
    from ingestkit import backfilling
    from ingestkit.working import RunOptions

    wanted = RunOptions(models=tuple(model or ()), batch=batch, run_id=run_id, from_lake=from_lake, if_locked=if_locked)
    with opening.working(ctx, pipeline, run_id=run_id, jobs=jobs) as session:
        outcome = opening.told(session, output, "backfill", lambda opened: backfilling.backfill(opened, wanted))
    return opening.ended(ctx, outcome, output)
