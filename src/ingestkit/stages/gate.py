"""Gate: judges what was published, and gives the verdict over all rules of a run. It takes nothing back."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from ingestkit.errors import ConfigError, WarehouseError
from ingestkit.model import Counts, Rule, SqlCheck, Stage, Verdict
from ingestkit.pipeline import RunContext
from ingestkit.settings import Freshness
from ingestkit.stages.validate_rules import percent

TOLD_AS: Mapping[str, str] = {
    "row_delta": "row_delta",
    **dict.fromkeys(("line_proof", "control_total", "unexplained_loss"), "counts"),
}
"""Rules whose failure people are told of as more than that a gate closed."""


def judged(
    ctx: RunContext, published: Mapping[str, tuple[Counts, Counts]], complete: Iterable[str]
) -> tuple[Rule, ...]:
    """Every rule over published data. `published` are what validate and load counted of the models this run published;
    `complete` the models that are done for the batch with this run."""
    rules: list[Rule] = []
    for model, (validated, loaded) in sorted(published.items()):
        limits = ctx.pipeline.limits(model)
        rules += loss(model, validated, loaded, limits.max_loss_pct)
        if limits.freshness is not None:
            newest = instant(ctx.warehouse.newest(ctx.pipeline.table(model), limits.freshness.column))
            rules.append(freshness(ctx, model, limits.freshness, newest))
    done = set(complete)
    for check in ctx.pipeline.checks:
        if set(check.models) <= done and set(check.models) & set(published):
            rules.append(_sql(ctx, check))
    return tuple(rules)


def loss(model: str, validated: Counts, loaded: Counts, limit: float | None) -> list[Rule]:
    """What of the source is not in the target, and why: none of it may be without a reason."""
    records, rejected, duplicates = validated.records or 0, validated.rejected or 0, validated.duplicates or 0
    filtered, superseded = loaded.filtered or 0, loaded.superseded or 0
    # A row that says of its key that it is gone was heard.
    lost = records - (loaded.loaded or 0) - (loaded.deletes or 0)
    unexplained = lost - rejected - filtered - superseded
    told = (
        f"of {records:,} records {rejected - duplicates:,} were rejected, {duplicates:,} duplicates, "
        f"{filtered:,} filtered, {superseded:,} superseded, {unexplained:,} unexplained"
    )
    rules = [
        Rule("unexplained_loss", Stage.GATE, model, unexplained, 0, unexplained == 0, approvable=False, told=told),
    ]
    if limit is not None:
        # What a newer batch has said stands in the target all the same.
        figure = percent(lost - superseded, records)
        rules.append(Rule("loss", Stage.GATE, model, figure, limit, figure <= limit, told=told))
    return rules


def freshness(ctx: RunContext, model: str, asked: Freshness, newest: datetime | None) -> Rule:
    """How many hours old the newest value is; not judged of a table without one."""
    limit = asked.max_age.total_seconds() / 3600
    if newest is None:
        return Rule("freshness", Stage.GATE, model, None, limit, None)
    age = (ctx.clock.now() - newest).total_seconds() / 3600
    # The instant is a cell's, and what is told of a rule goes to logs and people.
    told = f"figures are hours since the newest {asked.column}"
    return Rule("freshness", Stage.GATE, model, round(age, 2), limit, age <= limit, basis=newest.isoformat(), told=told)


def instant(value: Any) -> datetime | None:
    match value:
        case datetime():
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        case date():
            return datetime.combine(value, time(), UTC)
    return None


def _sql(ctx: RunContext, check: SqlCheck) -> Rule:
    try:
        ((found,),) = ctx.warehouse.query(f"SELECT count(*) FROM (\n{check.query}\n) AS found")
    except WarehouseError as error:
        hint = f"put it right, then: ingestkit run {ctx.pipeline.name}"
        raise ConfigError(f"{check.name} cannot be asked: {error.message}", hint=hint) from error
    told = f"{found:,} rows were returned, and it passes when there is none"
    return Rule(check.name, Stage.GATE, ", ".join(check.models), int(found), 0, found == 0, told=told)


def verdict(rules: Sequence[Rule], rejected: int) -> Verdict:
    """FAILED when any rule failed; with rejects, or whole files, that were let be, PASSED_WITH_REJECTS."""
    if any(rule.passed is False for rule in rules):
        return Verdict.FAILED
    kept_out = any(rule.name == "whole_files" and rule.figure for rule in rules)
    return Verdict.PASSED_WITH_REJECTS if rejected or kept_out else Verdict.PASSED


def explained(rule: Rule) -> str:
    """A rule as a person reads it: its name, figure and limit."""
    if rule.passed is None:
        return f"{rule.model}: {rule.name} not judged"
    if rule.contract and rule.passed is False:
        return f"{rule.model}: {rule.told}"
    if rule.limit is None and rule.passed:
        return f"{rule.model}: {rule.name} is {_figure(rule.figure)}, and may be any"
    least = "the least" if rule.least else "the limit"
    told = f"{rule.model}: {rule.name} is {_figure(rule.figure)} where {_figure(rule.limit)} is {least}"
    if rule.approved_by is not None:
        return f"{told}, approved by decision {rule.approved_by}"
    return f"{told} ({rule.told})" if rule.told and rule.passed is False else told


def failures(rules: Sequence[Rule]) -> str:
    return "; ".join(explained(rule) for rule in rules if rule.passed is False)


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.6g}"
