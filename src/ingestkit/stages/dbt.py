"""Dbt: builds what stands on the published tables, and has its tests judged as rules. What it builds is its own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ingestkit import steps
from ingestkit.errors import ConfigError
from ingestkit.model import Built, Rule, Stage
from ingestkit.pipeline import Pipeline, RunContext
from ingestkit.ports import Transform

NAMED = 5
"""So many nodes that could not be built are named in one line."""


def build(ctx: RunContext, transform: Transform) -> tuple[Built, ...]:
    """Build it all; ConfigError where a node could not be built or a test could not be asked."""
    found = tuple(transform.build(ctx.scratch, ctx.stop, ctx.progress.said))
    steps.reached("dbt.built")
    broken = [one for one in found if one.status in Built.ERRORS]
    if broken:
        raise _broken(ctx, broken, len(found))
    if not found:
        ctx.progress.warned("dbt built nothing and tested nothing: what dbt.select says is not in its project")
    for one in found:
        if one.kind in Built.TESTS and one.status == "warn":
            ctx.progress.warned(f"dbt: {one.name} warns, of {one.failures or 0:,} rows")
    return found


def _broken(ctx: RunContext, broken: Sequence[Built], of: int) -> ConfigError:
    told = "; ".join(f"{one.kind} {one.name}: {one.told}" for one in broken[:NAMED])
    more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    error = ConfigError(
        f"dbt could not build {len(broken):,} of {of:,} nodes: {told}{more}",
        hint=f"put it right, then: ingestkit run {ctx.pipeline.name}",
    )
    error.details = {"nodes": [_row(one) | {"error": one.told} for one in broken]}
    return error


def rules(pipeline: Pipeline, found: Sequence[Built]) -> tuple[Rule, ...]:
    """A rule of each test: how many rows it found. One that dbt skipped is not judged."""
    tests = [one for one in found if one.kind in Built.TESTS]
    several = Counter(one.name for one in tests)
    return tuple(_rule(pipeline, one, one.name if several[one.name] == 1 else one.unique) for one in tests)


def _rule(pipeline: Pipeline, one: Built, name: str) -> Rule:
    tables = {table.casefold() for table in one.tables}
    models = [model for model in pipeline.models if pipeline.table(model).casefold() in tables]
    # What stands on no table of the pipeline may change with any of them.
    looked_at = ", ".join(models or pipeline.models)
    passed = {"pass": True, "warn": True, "fail": False}.get(one.status)
    figure = float(one.failures if one.failures is not None else passed is False) if passed is not None else None
    return Rule(name, Stage.DBT, looked_at, figure, one.limit, passed, told="figures are rows that dbt's test found")


def told(found: Sequence[Built]) -> dict[str, Any]:
    """What a run keeps of a build besides its rules."""
    built = [_row(one) for one in found if one.kind not in Built.TESTS]
    return {"statuses": dict(sorted(Counter(one.status for one in found).items())), "nodes": built}


def _row(one: Built) -> dict[str, Any]:
    return {"node": one.unique, "status": one.status, "seconds": round(one.seconds, 3)}
