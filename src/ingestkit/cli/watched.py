"""What is said of a run while it is watched: facts about the run, its stages and its lease, and each as a line."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ingestkit.cli import render
from ingestkit.observe.text import printable

View: TypeAlias = Mapping[str, Any]
"""A run at one moment, as `views.going_on` gives it, with that moment as `now`."""

OF_RUN = ("pipeline", "batch", "attempt", "retry", "status", "verdict", "seconds", "exit_code", "error")
UNENDED = frozenset({"PENDING", "RUNNING"})
OF_STAGE = ("stage", "model", "status", "retry", "expected_seconds", "seconds", "error")


def changes(before: View | None, view: View) -> Iterator[View]:
    """What was not so before: the run's opening first, its end last."""
    known = {} if before is None else _facts(before)
    for key, fact in _facts(view).items():
        if _without_time(fact) != _without_time(known.get(key, {})):
            yield fact


def _without_time(fact: View) -> dict[str, Any]:
    return {name: value for name, value in fact.items() if name != "at"}


def _facts(view: View) -> dict[tuple[str, ...], View]:
    """What a view says, by what it speaks of, each with since when it is so."""
    run, run_id = view["run"], view["run"]["run_id"]
    at = run["ended_at"] or run["started_at"]
    of_run = {"kind": "run", "run_id": run_id, "at": at, **{name: run[name] for name in OF_RUN}}
    found: dict[tuple[str, ...], View] = {("run",): of_run} if run["status"] == "OPEN" else {}
    if run["status"] == "OPEN":
        found["lease",] = {"kind": "lease", "run_id": run_id, "at": view["now"], **holder(view)}
    for stage in view["stages"]:
        fact = {name: stage[name] for name in OF_STAGE} | amounts(stage)
        begun = stage["ended_at"] or stage["started_at"]
        found["stage", stage["stage"], stage["model"]] = {"kind": "stage", "run_id": run_id, "at": begun, **fact}
    # The end comes last.
    return found | {("run",): of_run}


def line(fact: View) -> str:
    """A fact as a line; what is unknown or nothing is left out."""
    match fact["kind"]:
        case "run":
            said = [f"run {fact['run_id']}: {fact['status']}"]
            said += [] if fact["batch"] is None else [f"batch {fact['batch']}", f"attempt {fact['attempt']}"]
        case "stage":
            of = "" if fact["model"] == "*" else f" {fact['model']}"
            said = [f"{fact['stage']}{of}: {fact['status']}"]
        case _:
            said = [f"lease: {shown(fact)}"]
    for name, unit in (("retry", "retry {}"), ("rows", "{} rows"), ("rejected", "{} rejected"), ("bytes", "{}")):
        if fact.get(name):
            said.append(unit.format(render.cell(name, fact[name])))
    if fact.get("seconds") is not None:
        said.append(render.duration(fact["seconds"]))
    elif fact.get("expected_seconds") is not None:
        said.append(f"usually {render.duration(fact['expected_seconds'])}")
    told = ", ".join(said) + (f": {fact['error']}" if fact.get("error") else "")
    return f"{render.cell('at', fact['at'])}  {printable(told)}\n"


def amounts(stage: View) -> dict[str, int | None]:
    """What came out of a stage; one that is done again keeps the counts of the time before until it has others."""
    return render.amounts({} if stage["status"] in UNENDED else stage["counts"] or {})


def shown(holder: View) -> str:
    if holder["owner"] is None:
        return "nobody works on it"
    who = f"{holder['owner']} ({holder['command'] or 'unknown command'})"
    return who if holder["alive"] else f"{who} is gone; the next run goes on with it"


def holder(view: View) -> dict[str, Any]:
    """Who works on the run's models; where several do, who came last."""
    if not view["leases"]:
        return {"owner": None, "command": None, "since": None, "alive": None}
    last = max(view["leases"], key=lambda one: int(one["token"]))
    facts = {"owner": last["owner"].shown(), "command": last["command"], "since": last["since"]}
    return {**facts, "alive": alive(last, view)}


def alive(lease: View, view: View) -> bool:
    return bool(lease["expires"] > view["now"] and not lease["owner"].is_dead())
