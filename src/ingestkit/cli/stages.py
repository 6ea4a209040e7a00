"""The stages as commands of their own, for schedulers that want one process each."""

from typing import TYPE_CHECKING

import typer

from ingestkit.cli import opening, options
from ingestkit.cli.options import Output

if TYPE_CHECKING:
    from ingestkit.working import RunOptions


def extract(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    model: options.Models = None,
    batch: options.Batch = None,
    force: options.Force = False,
    take_over: options.TakeOver = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Open a run for the oldest waiting batch, and bring its files into the lake."""
    from ingestkit.working import RunOptions

    wanted = RunOptions(
        models=tuple(model or ()),
        batch=batch,
        run_id=run_id,
        force=force,
        take_over=take_over,
        if_locked=if_locked,
    )
    return _stage(
        ctx, "extract", pipeline=pipeline, wanted=wanted, jobs=jobs, skip_exit_code=skip_exit_code, output=output
    )


def validate(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    force: options.Force = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Turn the run's raw files into typed Parquet, and set rejects apart."""
    return later(
        ctx,
        "validate",
        pipeline=pipeline,
        run_id=run_id,
        force=force,
        if_locked=if_locked,
        jobs=jobs,
        skip_exit_code=skip_exit_code,
        output=output,
    )


def load(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    force: options.Force = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Publish the run's valid rows to the target tables."""
    return later(
        ctx,
        "load",
        pipeline=pipeline,
        run_id=run_id,
        force=force,
        if_locked=if_locked,
        jobs=jobs,
        skip_exit_code=skip_exit_code,
        output=output,
    )


def gate(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    force: options.Force = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Judge the run, complete its models and close it."""
    return later(
        ctx,
        "gate",
        pipeline=pipeline,
        run_id=run_id,
        force=force,
        if_locked=if_locked,
        jobs=jobs,
        skip_exit_code=skip_exit_code,
        output=output,
    )


def clean(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    run_id: options.RunId = None,
    force: options.Force = False,
    if_locked: options.IfLocked = "fail",
    jobs: options.Jobs = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Remove from the lake what retention no longer keeps."""
    return later(
        ctx,
        "clean",
        pipeline=pipeline,
        run_id=run_id,
        force=force,
        if_locked=if_locked,
        jobs=jobs,
        skip_exit_code=skip_exit_code,
        output=output,
    )


def later(
    ctx: typer.Context,
    stage: str,
    *,
    pipeline: str | None,
    run_id: str | None,
    force: bool,
    if_locked: str,
    jobs: int | None,
    skip_exit_code: int | None,
    output: Output,
) -> int:
    """A stage that works on a run which extract opened."""
    from ingestkit.working import RunOptions

    wanted = RunOptions(run_id=run_id, force=force, if_locked=if_locked)
    return _stage(ctx, stage, pipeline=pipeline, wanted=wanted, jobs=jobs, skip_exit_code=skip_exit_code, output=output)


def _stage(
    ctx: typer.Context,
    stage: str,
    *,
    pipeline: str | None,
    wanted: "RunOptions",
    jobs: int | None,
    skip_exit_code: int | None,
    output: Output,
) -> int:
    from ingestkit import stagewise
    from ingestkit.model import Stage

    with opening.working(ctx, pipeline, run_id=wanted.run_id, jobs=jobs) as session:
        outcome = stagewise.stage(session, Stage(stage), wanted)
    return opening.ended(ctx, outcome, output, skip_exit_code)
