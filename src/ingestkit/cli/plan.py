"""`plan`: what a run would do. Nothing is written, and nobody has to wait for it."""

from datetime import datetime
from typing import Any

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import IngestkitError

STRAYS = 10
"""So many are named where people read."""
SCALARS = ("pipeline", "waiting", "checkpoint", "paused", "held")


def plan(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    model: options.Models = None,
    batch: options.Batch = None,
    skip_exit_code: options.SkipExitCode = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Show what a run would do; nothing is written."""
    from ingestkit import planning
    from ingestkit.working import RunOptions

    with opening.rehearsing(ctx, pipeline, writes=False) as session:
        found = planning.plan(session, RunOptions(models=tuple(model or ()), batch=batch))
    return ended(ctx, found, output, skip_exit_code)


def ended(ctx: typer.Context, found: dict[str, Any], output: Output, skip_exit_code: int | None) -> int:
    """Draw a plan, and give its exit code: that of what a run would refuse or cannot look at goes before all."""
    draw(found, output)
    if found.get("failure"):
        opening.answered(ctx)
        failure = IngestkitError(found["failure"]["message"], hint=found["failure"]["hint"])
        failure.exit_code = found["failure"]["exit_code"]
        raise failure
    return skip_exit_code if skip_exit_code is not None and not found["waiting"] else 0


def draw(found: dict[str, Any], output: Output) -> None:
    if output is not Output.TEXT:
        render.emit(found, output)
        return
    if not found["waiting"]:
        nothing = "nothing new for" if "gates" in found else "nothing to do again of"
        render.write(f"{nothing} {found['pipeline']}\n\n")
    told = {name: _sentence(value) for name in SCALARS if (value := found.get(name)) is not None}
    lists = {name: value for name, value in found.items() if name not in (*SCALARS, "failure") and value}
    if "batches" in lists:
        lists["batches"] = [_spanned(one) for one in lists["batches"]]
    if "strays" in lists:
        named, more = lists["strays"][:STRAYS], len(lists["strays"]) - STRAYS
        lists["strays"] = [{"path": one} for one in named] + ([{"path": f"and {more} more"}] if more > 0 else [])
    if "gates" in lists:
        lists["gates"] = [_shown(rule) for rule in lists["gates"] if rule["limit"] or rule["last"]]
    render.emit({**told, **lists}, output)


def _spanned(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch with the ends of its window, if it is one."""
    window = batch.get("window")
    told = {name: value for name, value in batch.items() if name != "window"}
    return told | {name: datetime.fromisoformat(at) for name, at in window.items()} if window else told


def _sentence(value: Any) -> Any:
    """A pause or a hold as it is told; anything else as it is."""
    if not isinstance(value, dict):
        return value
    by = f" by {value['by']}" if value.get("by") else ""
    return f"since {value['since']:%Y-%m-%d %H:%M}Z{by}: {value['reason']}"


def _shown(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule in one line; what is always 0 and must be is left to JSON."""
    figures = [one["figure"] for one in rule["history"]]
    limit = None if rule["limit"] is None else f"{'>=' if rule['least'] else '<='} {rule['limit']:g}"
    shown = {name: rule[name] for name in ("model", "rule", "last", "usual_rows")}
    return {**shown, "limit": limit, "before": [render.cell("figure", one) for one in figures[1:]]}
