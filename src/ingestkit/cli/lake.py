"""`lake`: what the service a lake lies in is told to do by itself."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestkit.cli import handler, opening, options, render
from ingestkit.cli.options import Output

if TYPE_CHECKING:
    from ingestkit.lifecycle import Change, Plan
    from ingestkit.ports import Lifecycle
    from ingestkit.project import Project

COLUMNS = ("change", "rule", "does", "prefix", "days")
Lake = Annotated[
    str | None,
    typer.Argument(metavar="LAKE", help="Its connection; may be left out when the pipelines have only one lake."),
]


def commands() -> typer.Typer:
    app = typer.Typer(help="Tell a lake's service what to remove by itself.")
    lifecycle = typer.Typer(help="Show and write a lake's lifecycle rules.")
    lifecycle.command("plan")(plan)
    lifecycle.command("apply")(apply)
    app.add_typer(lifecycle, name="lifecycle")
    return app


def plan(ctx: typer.Context, lake: Lake = None, output: options.OutputFormat = Output.TEXT) -> None:
    """Show which lifecycle rules `apply` would add, change and remove, and those of others, which stay."""
    service, planned = _planned(opening.project_of(ctx), lake)
    _draw(ctx, service, planned, "to be written" if planned.to_write else "up to date", output)


def apply(
    ctx: typer.Context, *, lake: Lake = None, yes: options.Yes = False, output: options.OutputFormat = Output.TEXT
) -> None:
    """Write a lake's lifecycle rules beside those of others; nothing is written where all is as it should be."""
    from ingestkit import lifecycle
    from ingestkit.pipeline import SystemClock

    service, planned = _planned(opening.project_of(ctx), lake)
    if planned.to_write:
        told = ", ".join(f"{one.name} {one.change}" for one in planned.to_write)
        others = sum(one.change == "foreign" for one in planned.changes)
        opening.confirm_or_refuse(
            f"Change the lifecycle rules of {service.place}: {told}? Rules of others, which stay: {others}.", yes=yes
        )
        lifecycle.apply(service, planned, SystemClock())
    _draw(ctx, service, planned, "done" if planned.to_write else "up to date", output)


def _planned(loaded: "Project", lake: str | None) -> "tuple[Lifecycle, Plan]":
    from ingestkit import lifecycle

    named = {name: loaded.pipeline(name).settings for name in loaded.pipelines()}
    name = _meant(sorted({one.lake for one in named.values()}), lake)
    service, wanted = loaded.lifecycle(name)
    pipelines = [one for one in named.values() if one.lake == name]
    lifecycle.refuse_short(f"connections.{name}.lifecycle", wanted, service.inflight, pipelines)
    return service, lifecycle.plan(service, wanted, pipelines)


def _meant(lakes: list[str], lake: str | None) -> str:
    from ingestkit.errors import UsageError

    if lake is not None:
        return lake
    if len(lakes) != 1:
        raise UsageError(f"name a lake: the pipelines have {', '.join(lakes) or 'none'}")
    return lakes[0]


def _draw(ctx: typer.Context, service: "Lifecycle", planned: "Plan", status: str, output: Output) -> None:
    rows = [_row(one) for one in planned.changes]
    place = f"{service.place}/{service.prefix}".rstrip("/")
    if output is not Output.TEXT:
        render.emit({"lake": place, "status": status, "warnings": planned.warnings, "rules": rows}, output)
        return
    shown = [{name: row[name] for name in COLUMNS} for row in rows]
    render.emit({"lake": place, "status": status, "rules": shown}, output)
    for warning in planned.warnings:
        handler.report(warning, opening.globals_of(ctx), kind="warning")


def _row(one: "Change") -> dict[str, Any]:
    """A change in columns; in JSON also as the service has and will have it worded."""
    says, there, meant = one.says, one.there, one.meant
    return {
        "change": one.change,
        "rule": one.name,
        "does": None if says is None else says.does,
        "prefix": None if says is None else says.prefix,
        "days": None if says is None else says.days,
        "before": None if there is None else there.text,
        "after": there.text if one.change == "foreign" and there is not None else None if meant is None else meant.text,
    }
