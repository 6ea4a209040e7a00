"""`dbt`: the tables of a pipeline as sources of dbt, and the stage that builds on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingestkit.cli import opening, options, render, stages
from ingestkit.cli.options import Output

if TYPE_CHECKING:
    from ingestkit.project import Project


def commands() -> typer.Typer:
    app = typer.Typer(help="Tell dbt of a pipeline's tables, and build on them.")
    app.command("sources")(sources)
    app.command("build")(build)
    return app


def build(
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
    """Build the pipeline's dbt project on what the run has published, and have its tests judged."""
    return stages.later(
        ctx,
        "dbt",
        pipeline=pipeline,
        run_id=run_id,
        force=force,
        if_locked=if_locked,
        jobs=jobs,
        skip_exit_code=skip_exit_code,
        output=output,
    )


def sources(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where; else models/PIPELINE/sources.yml of its dbt project, or sources.yml here.",
            show_envvar=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and fail where the file is another.", show_envvar=False)
    ] = False,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Write sources.yml of a pipeline's tables, with tests and freshness from its contracts; --check compares it."""
    from ingestkit import dbt_sources, files
    from ingestkit.errors import ConfigError, UsageError

    loaded = opening.project_of(ctx)
    name = opening.pipeline_name(loaded, pipeline)
    path = out or _place(loaded, name)
    text = dbt_sources.text(loaded.pipeline(name), loaded.dbt_target(name))
    before = _there(path)
    if check:
        if before != text:
            raise ConfigError(
                f"{files.shown(path)} {'is not there' if before is None else 'is not as the contracts say'}",
                hint=f"ingestkit dbt sources {name}",
            )
    elif before is not None and dbt_sources.MARK not in before:
        raise UsageError(
            f"{files.shown(path)} is there, and was not {dbt_sources.MARK}`", hint="take it away, or name another --out"
        )
    elif before != text:
        with opening.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_whole(path, text.encode())
    render.emit([{"pipeline": name, "file": str(path), "changed": before != text}], output)


def _place(loaded: "Project", name: str) -> Path:
    said = loaded.pipeline(name).settings.dbt
    return Path("sources.yml") if said is None else loaded.root / said.project / "models" / name / "sources.yml"


def _there(path: Path) -> str | None:
    from ingestkit.errors import UsageError

    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
