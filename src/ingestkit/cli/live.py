"""A watched run on a terminal: drawn anew in its place with each look; imported only where there is one."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ingestkit.cli import render
from ingestkit.cli.watched import View, amounts, holder, shown
from ingestkit.model import ALL_STAGES, Stage
from ingestkit.observe.text import printable
from ingestkit.states.stage_rows import RUN_WIDE


def drawn(seen: Iterable[View]) -> View:
    """Draw each look over the one before; the last one stays on the screen."""
    view: View = {}
    with Live(console=Console(), auto_refresh=False, redirect_stdout=False) as live:
        for view in seen:
            live.update(frame(view), refresh=True)
    return view


def frame(view: View) -> Group:
    """A line about the run, a table of its models by stage, and a line about who works on it."""
    run, now = view["run"], view["now"]
    by_place = {(one["stage"], one["model"]): one for one in view["stages"]}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    stages = [one for one in ALL_STAGES if one is not Stage.DBT or _has_dbt(view)]
    for name in ("model", *stages, "rows", "rejected"):
        table.add_column(name, justify="right" if name in ("rows", "rejected") else "left", overflow="fold")
    for model in dict.fromkeys((*run["models"], "*")):
        # One that is all tables of a pipeline has its row with what is of the run as a whole.
        shown = [stage for stage in stages if (model == "*" if stage in RUN_WIDE else model in run["models"])]
        cells = [_cell(by_place.get((stage, model)), now) if stage in shown else "" for stage in stages]
        counted = [amounts(by_place[stage, model]) for stage in stages if (stage, model) in by_place]
        figures = [_newest(name, counted) for name in ("rows", "rejected")]
        table.add_row(
            *(Text(one, style=render.style(one.partition(" ")[0])) for one in (printable(model), *cells, *figures))
        )
    elapsed = (run["ended_at"] or now) - run["started_at"]
    said = f"{run['run_id']}  {run['status']}  {render.duration(max(0.0, elapsed.total_seconds()))}"
    return Group(Text(printable(said), style="bold"), table, Text(_heard_of(view), style="dim"))


def _has_dbt(view: View) -> bool:
    return Stage.DBT in view["run"]["phases_pending"] or any(one["stage"] == Stage.DBT for one in view["stages"])


def _newest(name: str, counted: Sequence[Mapping[str, int | None]]) -> str:
    """The figure of the last stage that knows it."""
    known = [counts[name] for counts in counted if counts[name] is not None]
    return render.cell(name, known[-1] if known else None)


def _cell(stage: View | None, now: datetime) -> str:
    if stage is None:
        return "-"
    status = str(stage["status"]).lower()
    if status != "running":
        return status if stage["seconds"] is None else f"{status} {render.duration(stage['seconds'])}"
    elapsed = render.duration(max(0.0, (now - stage["started_at"]).total_seconds()))
    usual = stage["expected_seconds"]
    return f"{status} {elapsed}" + (f" of {render.duration(usual)}" if usual is not None else "")


def _heard_of(view: View) -> str:
    """Who works on the run, and when the state last heard of them."""
    if view["run"]["status"] != "OPEN":
        return ""
    beats = [one["beat"] for one in view["leases"] if one["beat"] is not None]
    ago = f", heard of {render.duration(max(0.0, (view['now'] - max(beats)).total_seconds()))} ago" if beats else ""
    return printable(f"{shown(holder(view))}{ago}")
