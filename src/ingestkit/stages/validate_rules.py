"""The rules judged at the end of validate: figures and limits; what a failed one leads to is the runner's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ingestkit.files import shown
from ingestkit.model import Counts, LoadMode, Rule, Stage, lies_in
from ingestkit.pipeline import RunContext

OF_THE_WHOLE = ("line_proof", "min_rows", "row_delta", "control_total")
"""Rules that some of the records say nothing about."""


def percent(part: int, whole: int) -> float:
    """0 of 0 is 0 %."""
    return 100 * part / whole if whole else 0.0


def judged(
    ctx: RunContext,
    model: str,
    counts: Counts,
    file_percents: Sequence[float],
    mode: LoadMode,
    read: Mapping[str, int],
    *,
    uncounted: bool = False,
) -> tuple[Rule, ...]:
    """Every rule of validate. Of the files that were kept `file_percents` are the reject rates, `read` the records.

    `uncounted`: of a file kept out whole nobody can say how many records it has, and so not how many of all that is.
    """
    limits = ctx.pipeline.limits(model)
    valid, records, rejected = counts.valid or 0, counts.records or 0, counts.rejected or 0
    rules = [
        _at_most("line_proof", model, records - valid - rejected, 0, approvable=False),
        _at_most("reject_rate", model, percent(rejected, records), limits.max_reject_pct),
        _at_most(
            "file_reject_rate",
            model,
            max(file_percents, default=0.0),
            ctx.pipeline.settings.validation.max_file_reject_pct,
        ),
        _at_least("empty", model, valid, 0 if _may_be_empty(ctx, model, mode) else 1),
    ]
    # Of changes alone there are many today and few tomorrow.
    if limits.min_rows is not None and mode is ctx.pipeline.model(model).load:
        rules.append(_at_least("min_rows", model, valid, limits.min_rows))
    if limits.row_delta_pct is not None and mode is ctx.pipeline.model(model).load:
        rules.append(_row_delta(ctx, model, valid, limits.row_delta_pct))
    rules += control_total(ctx, model, read)
    if uncounted:
        rules = [replace(rule, figure=None, passed=None) if rule.name == "reject_rate" else rule for rule in rules]
    if ctx.facts.get("rows_at_most") is not None:
        rules = [replace(rule, figure=None, passed=None) if rule.name in OF_THE_WHOLE else rule for rule in rules]
    return tuple(rules)


def control_total(ctx: RunContext, model: str, read: Mapping[str, int]) -> tuple[Rule, ...]:
    """How many records are missing or too many beside what each report says; `read` are those of each file.

    Not judged where there are files of the model and no report speaks of it.
    """
    announced = ctx.facts.get("announced")
    spoken = [one for one in announced or () if one["counts"]]
    if announced is None or not (spoken or read):
        return ()
    if not spoken:
        return (Rule("control_total", Stage.VALIDATE, model, None, 0, None),)
    off, told = 0, []
    for one in spoken:
        said = sum(one["counts"].values())
        found = sum(records for path, records in read.items() if lies_in(path, one["of"]))
        if said != found:
            off += abs(said - found)
            entities = ", ".join(map(shown, one["counts"]))
            told.append(f"{shown(one['report'])} says {said:,} records of {entities}, and {found:,} were read")
    more = f"; and {len(told) - 1} more of its reports" if len(told) > 1 else ""
    rule = _at_most("control_total", model, off, 0, told=f"{told[0]}{more}" if told else None)
    return (replace(rule, contract=True),)


def _may_be_empty(ctx: RunContext, model: str, mode: LoadMode) -> bool:
    return ctx.pipeline.model(model).allow_empty or mode is not LoadMode.REPLACE


def _row_delta(ctx: RunContext, model: str, valid: int, limit: float) -> Rule:
    usual = ctx.facts.get("usual_rows", {}).get(model)
    if not usual or (not valid and ctx.pipeline.model(model).allow_empty):
        return Rule("row_delta", Stage.VALIDATE, model, None, limit, None)
    told = f"{valid:,} rows where {usual:,.0f} are usual"
    return _at_most("row_delta", model, 100 * abs(valid - usual) / usual, limit, told=told)


def _at_most(
    name: str, model: str, figure: float, limit: float, *, approvable: bool = True, told: str | None = None
) -> Rule:
    return Rule(name, Stage.VALIDATE, model, figure, limit, figure <= limit, approvable, told=told)


def _at_least(name: str, model: str, figure: float, limit: float) -> Rule:
    return Rule(name, Stage.VALIDATE, model, figure, limit, figure >= limit, least=True)
