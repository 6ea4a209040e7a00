"""The flags that commands share, and what the flags before a command said."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from ingestkit.cli import completing

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["auto", "json", "text"]


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"
    NDJSON = "ndjson"


@dataclass(slots=True)
class Globals:
    """What was said before the command; `folder` is known once the project's settings are read."""

    project: Path | None = None
    profile: str | None = None
    env_file: Path | None = None
    no_env_file: bool = False
    log_level: Level | None = None
    log_format: Format | None = None
    quiet: bool = False
    folder: Path | None = None
    """Where state lives, and where the traceback of a bug is put."""
    command: str = ""
    pipeline: str | None = None
    output: Output = Output.TEXT
    """How standard output is to be told of an error: not at all where it is text, or has its answer already."""


def _lock_policy(value: str) -> str:
    import re

    if re.fullmatch(r"fail|skip|wait:\d+(\.\d+)?(ms|s|m|h|d|w)", value) is None:
        raise typer.BadParameter(f"{value!r} is none of fail, skip, wait:10m")
    return value


def duration_said(value: str | None) -> str | None:
    import re

    if value is not None and re.fullmatch(r"\d+(\.\d+)?(ms|s|m|h|d|w)", value) is None:
        raise typer.BadParameter(f"{value!r} is no duration such as 90s, 30m or 2h")
    return value


def _run_name(value: str | None) -> str | None:
    if value is not None and (not 0 < len(value) <= 250 or "\0" in value):
        raise typer.BadParameter("a run's id is any text of 1 to 250 characters")
    return value


def _output_noted(ctx: typer.Context, value: Output) -> Output:
    if (said := ctx.find_object(Globals)) is not None:
        said.output, said.command = value, ctx.command_path.partition(" ")[2]
    return value


def _pipeline_noted(ctx: typer.Context, value: str | None) -> str | None:
    if (said := ctx.find_object(Globals)) is not None:
        said.pipeline = value
    return value


PipelineName: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="PIPELINE",
        help="May be left out when the project has exactly one.",
        callback=_pipeline_noted,
        autocompletion=completing.pipelines,
    ),
]
NamedPipeline: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help="The pipeline's name.",
        callback=_pipeline_noted,
        autocompletion=completing.pipelines,
    ),
]
OutputFormat: TypeAlias = Annotated[
    Output,
    typer.Option(
        "--output",
        help="How the result is written to standard output.",
        # Before the others, so that what is wrong with them is told as it wants.
        is_eager=True,
        callback=_output_noted,
        show_envvar=False,
    ),
]
RunId: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        metavar="RUN",
        help="The run; the same id again is the same run.",
        callback=_run_name,
        show_envvar=False,
        autocompletion=completing.runs,
    ),
]
Models: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Only this model; may be given again.",
        show_envvar=False,
        autocompletion=completing.models,
    ),
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="Only this model.", show_envvar=False, autocompletion=completing.models
    ),
]
Batch: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--batch", metavar="BATCH", help="Only this batch.", show_envvar=False, autocompletion=completing.batches
    ),
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="From this instant on, in UTC, such as 2026-01-31; or so long ago, such as 24h.",
        show_envvar=False,
    ),
]
Until: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Up to this instant, without it.", show_envvar=False)
]
NamedBatch: TypeAlias = Annotated[
    str,
    typer.Option(
        "--batch", metavar="BATCH", help="The batch's key.", show_envvar=False, autocompletion=completing.batches
    ),
]
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Do it again, with all that depends on it.", show_envvar=False)
]
TakeOver: TypeAlias = Annotated[
    bool,
    typer.Option("--take-over", help="Take models over from an open run that nobody works on.", show_envvar=False),
]
IfLocked: TypeAlias = Annotated[
    str,
    typer.Option(
        "--if-locked",
        metavar="fail|skip|wait:10m",
        help="What to do when somebody else is working on it.",
        callback=_lock_policy,
        show_envvar=False,
        autocompletion=completing.lock_policies,
    ),
]
Jobs: TypeAlias = Annotated[
    int | None,
    typer.Option("--jobs", min=1, max=64, help="Models worked on side by side.", show_default=False, show_envvar=False),
]
SkipExitCode: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--skip-exit-code",
        min=0,
        max=255,
        help="Exit with this when there was nothing new; 99 is a skip to Airflow.",
        show_envvar=False,
    ),
]
Reason: TypeAlias = Annotated[str, typer.Option("--reason", help="Why; kept for good.", show_envvar=False)]
By: TypeAlias = Annotated[
    str | None, typer.Option("--by", help="Who decided; else the user of this session.", show_envvar=False)
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.", show_envvar=False)]
