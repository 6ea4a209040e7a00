"""`schedule`: what starts pipelines when it is time, written for cron and for Airflow."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output

if TYPE_CHECKING:
    from ingestkit.project import Project
    from ingestkit.schedules.call import Call
    from ingestkit.settings import PipelineSettings

Pipelines = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PIPELINE]...",
        help="Which; else all that say a schedule.",
        autocompletion=completing.pipelines,
        show_default=False,
    ),
]
Program = Annotated[
    Path | None,
    typer.Option(
        "--program", metavar="FILE", help="The ingestkit that is called; else the one that is asked.", show_envvar=False
    ),
]


def commands() -> typer.Typer:
    app = typer.Typer(help="Write what starts pipelines: lines for cron, DAGs for Airflow.")
    app.command("cron")(cron)
    app.command("airflow")(airflow)
    return app


def cron(
    ctx: typer.Context,
    *,
    pipelines: Pipelines = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="What is logged goes there; else to cron.log.", show_envvar=False),
    ] = None,
    heeds_zone: Annotated[
        bool,
        typer.Option("--cron-tz", help="For a cron that heeds CRON_TZ, as cronie does.", show_envvar=False),
    ] = False,
    zone: Annotated[
        str | None,
        typer.Option(
            "--machine-zone", metavar="ZONE", help="The clock cron goes by; else this machine's.", show_envvar=False
        ),
    ] = None,
    program: Program = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Print lines for `crontab -e`: each starts one pipeline when its schedule says, by the clock of its time zone."""
    from ingestkit.errors import UsageError
    from ingestkit.schedules.cron import Crontab
    from ingestkit.settings import Schedule
    from ingestkit.windows import zone_of

    loaded = opening.project_of(ctx)
    if zone is not None:
        try:
            zone_of(zone)
        except ValueError as error:
            raise UsageError(str(error), hint="--machine-zone Europe/Berlin") from error
    call = _call(ctx, loaded, program)
    table = Crontab(call, (log or loaded.root / "cron.log").absolute(), zone or _zone_here(), heeds_zone)
    found: list[dict[str, Any]] = []
    for one in _scheduled(loaded, pipelines or ()):
        assert one.schedule is not None
        lines = table.lines(one.pipeline, one.schedule, call.run(one.pipeline))
        found.append({"pipeline": one.pipeline, "lines": list(lines)})
    if loaded.settings.alerts.channels and not pipelines:
        lines = table.lines("alerts check", Schedule(cron=loaded.settings.alerts.check), call.look())
        found.append({"pipeline": None, "lines": list(lines)})
    if output is not Output.TEXT:
        render.emit(found, output)
        return
    render.write("".join(f"{line}\n" for each in found for line in each["lines"]))


def airflow(
    ctx: typer.Context,
    *,
    pipelines: Pipelines = None,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Airflow's folder of DAGs.", show_envvar=False),
    ] = Path("dags"),
    on_failure: Annotated[
        str | None,
        typer.Option(
            "--on-failure",
            metavar="COMMAND",
            help="Called when a task has failed for good, with what to tell as its last word.",
            show_envvar=False,
        ),
    ] = None,
    program: Program = None,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Write a DAG of each pipeline, `pipeline_NAME.py`, whose tasks are its stages; only its own files are replaced."""
    import shlex

    from ingestkit import files
    from ingestkit.errors import UsageError
    from ingestkit.schedules import airflow as dags

    loaded = opening.project_of(ctx)
    call = _call(ctx, loaded, program)
    rows: list[dict[str, str | None]] = []
    texts: dict[Path, str] = {}
    for one in _scheduled(loaded, pipelines or ()):
        path = out / f"pipeline_{one.pipeline}.py"
        texts[path] = dags.dag(one, shlex.split(on_failure or ""), call)
        rows.append({"pipeline": one.pipeline, "file": str(path)})
    if loaded.settings.alerts.channels and not pipelines:
        path = out / "ingestkit_alerts.py"
        texts[path] = dags.looking(loaded.settings.alerts.check, call)
        rows.append({"pipeline": None, "file": str(path)})
    for path in texts:
        if path.exists() and dags.MARK not in path.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(
                f"{files.shown(path)} is there, and was not {dags.MARK}", hint="take it away, or name another --out"
            )
    for path, text in texts.items():
        with opening.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_whole(path, text.encode())
    render.emit(rows, output)


def _scheduled(loaded: "Project", names: "list[str] | tuple[str, ...]") -> "list[PipelineSettings]":
    from ingestkit.errors import ConfigError

    found = [loaded.pipeline(name).settings for name in names or loaded.pipelines()]
    silent = [one.pipeline for one in found if one.schedule is None]
    scheduled = [one for one in found if one.schedule is not None]
    if (names and silent) or not scheduled:
        told = f"pipeline {silent[0]} says no schedule" if silent else "there is no pipeline"
        raise ConfigError(told, hint="schedule: {cron: '0 6 * * *', timezone: Europe/Berlin} in its file says one")
    return scheduled


def _call(ctx: typer.Context, loaded: "Project", program: Path | None) -> "Call":
    from ingestkit.schedules.call import Call, flags

    said = opening.globals_of(ctx)
    here = shutil.which("ingestkit", path=str(Path(sys.executable).parent)) or sys.argv[0]
    told = flags(profile=said.profile, env_file=said.env_file, no_env_file=said.no_env_file)
    return Call((program or Path(here)).absolute(), loaded.root, told)


def _zone_here() -> str | None:
    """The time zone of this machine, by which its cron goes; none is UTC, and one of no name is unknown."""
    place = Path("/etc/localtime")
    if not place.exists():
        return "UTC"
    _, found, name = str(place.resolve()).partition("/zoneinfo/")
    return name if found else None
