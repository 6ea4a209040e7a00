"""What each stage of a run is given, when it stands already, and what becomes of what it returns."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sql

from ingestkit import approvals, keeping, metering, steps, totals
from ingestkit.active import Active, Known
from ingestkit.cleaning import clean_behind
from ingestkit.errors import (
    ContractError,
    GateClosed,
    IngestkitError,
    LeaseLost,
    PlanAgain,
    SourceError,
    UsageError,
    WarehouseError,
)
from ingestkit.model import (
    Artifact,
    ArtifactKind,
    Completion,
    CompletionStatus,
    Counts,
    FileStatus,
    FileVersion,
    LoadMode,
    Receipt,
    Rule,
    Stage,
    StageStatus,
    Verdict,
    Work,
    digest_of,
)
from ingestkit.observe import logging
from ingestkit.pipeline import RunContext
from ingestkit.recording import attempt, perform, record
from ingestkit.sighting import Unit, is_absent, one_batch
from ingestkit.stages import dbt, extract, gate, load, tables
from ingestkit.stages.validate_rules import control_total
from ingestkit.states import completions, decisions, drifts, ledger, runs
from ingestkit.states.stage_rows import StageRow

PLANS = 5
"""How often a publish is planned anew because the target moved under it."""
WORK = (Stage.EXTRACT, Stage.VALIDATE, Stage.LOAD)
"""The stages that have one row per model."""


def do_stage(active: Active, stage: Stage) -> None:
    """Do one stage of the run for all its models; what is done already and holds stays."""
    match stage:
        case Stage.EXTRACT:
            # Nothing is landed where nothing is wanted.
            wanted = any(active.unit.wanted.values()) or not active.session.pipeline.keeps
            _side_by_side(active, partial(_extract, active, active.known(raw=wanted)))
        case Stage.VALIDATE:
            _side_by_side(active, partial(_validate, active, active.known(raw=True, made=True)))
        case Stage.LOAD:
            _load(active, active.known(made=True))
        case Stage.DBT:
            _dbt(active, active.known())
        case Stage.GATE:
            _gate(active, active.known())
        case Stage.CLEAN:
            clean_behind(active)
        case _:
            raise UsageError(f"pipeline {active.pipeline_name} has no stage {stage}")


def _extract(active: Active, known: Known, model: str) -> None:
    settings = active.session.pipeline.extract_settings()
    wanted = active.unit.wanted.get(model, ())
    beside = active.unit.unmapped if model == _carrier(active, known) else ()
    tries = itertools.count()
    lost = keeping.lost(active, known, model, wanted)
    whole = not lost or _is_loaded(active, known, model)
    if whole and not (wanted or beside) and _stands(active, known, Stage.EXTRACT, model, settings):
        before = totals.said(known.rows.get((Stage.EXTRACT, model)))
        if all(one.of_model(model) in before for one in active.unit.announced):
            return

    def job() -> Work:
        ctx = metering.watched(active, Stage.EXTRACT, model, active.context())
        absent = is_absent(active.session, active.unit, model, known.meant)
        unit, now = active.unit, known
        if next(tries) and wanted and not absent:
            unit, now = _sighted_again(active, model), active.known(raw=True)
        work = Work(skipped="the batch has no file of it")
        if not absent:
            left = unit.wanted.get(model, ())
            work = extract.extract(ctx, model, left, now.landed(model), keeping.at_the_source(active, lost))
        kept = extract.keep(ctx, model, beside)
        files = (*work.files, *_put_right(ctx, now, model, unit, work), *kept.files)
        artifacts = (*work.artifacts, *kept.artifacts)
        return replace(work, files=files, artifacts=artifacts, details=_announced(active, now, model, unit))

    total = sum(item.size for _, item in (*wanted, *beside)) + sum(file.size for file in lost)
    perform(active, Stage.EXTRACT, model, settings, job, total=total)


def _carrier(active: Active, known: Known) -> str:
    """With which model that is landed which is of none: the first with files, since one without may fail for that."""
    there = (one for one in active.models if active.unit.wanted.get(one) or ledger.candidates(known.meant, one))
    return next(there, active.models[0])


def _put_right(ctx: RunContext, known: Known, model: str, unit: Unit, work: Work) -> list[FileVersion]:
    """Files that had landed, where their report says of them what it had not; what is published stays as it was."""
    fetched = {file.path for file in work.files if file.status is not FileStatus.SKIPPED}
    landed = (file for file in ledger.candidates(known.meant, model) if file.path not in fetched)
    left = [file for file in landed if file.loaded is None or file.changes is None]
    said = [totals.flagged(file, unit.announced) for file in left]
    changed = (now for now, before in zip(said, left, strict=True) if now != before)
    return [replace(file, run_id=ctx.run_id, token=ctx.token) for file in changed]


def _announced(active: Active, known: Known, model: str, unit: Unit) -> dict[str, Any]:
    """What reports say of the model, as its extract keeps it."""
    every = [file for one in active.session.pipeline.models for file in ledger.candidates(known.meant, one)]
    return totals.kept(active.session, active.batch, model, unit.announced, every, active.run.as_of)


def _sighted_again(active: Active, model: str) -> Unit:
    """What is still to be fetched, as the source shows it now: a file that changed under the first try is another."""
    unit, blocked = one_batch(active.session, active.lease, active.batch, [model], active.run.window)
    if unit is None:
        raise SourceError(f"batch {active.batch}: {blocked}", hint=f"ingestkit run {active.pipeline_name}, later")
    return unit


def _validate(active: Active, known: Known, model: str) -> None:
    settings = active.session.pipeline.validate_settings(model, active.run.window)
    superseded = model in active.unit.newer
    candidates = ledger.candidates(known.meant, model) if superseded else known.candidates(model)
    again = Stage.VALIDATE in active.again
    if not again and _stands(active, known, Stage.VALIDATE, model, settings, candidates):
        return

    def job() -> Work:
        ctx = metering.watched(active, Stage.VALIDATE, model, active.context())
        if active.session.pipeline.settings.source.totals is not None:
            ctx = replace(ctx, facts={**ctx.facts, "announced": totals.said(known.rows.get((Stage.EXTRACT, model)))})
        if not candidates:
            # Nothing is published of what a newer batch takes the place of.
            missing = () if superseded else control_total(ctx, model, {})
            rules = _approved(active, missing, {model: {"digest": digest_of(())}})
            return Work(skipped="the batch has no file of it", rules=rules)
        if superseded:
            counts = Counts(files=len(candidates), bytes=sum(file.size for file in candidates))
            return Work(counts=counts, skipped=f"superseded by {active.unit.newer[model]}, which waits")
        if active.run.kind == "restore":
            # It is judged as what it was, and not by what its names say today.
            ctx = replace(ctx, facts={**ctx.facts, "stood": _stood(active, _done_before(active, model))})
        work = active.session.validate(ctx, model, candidates, known.artifacts(model), again=again)
        judged = digest_of(work.files)
        rules = _approved(active, work.rules, {model: {"digest": judged}})
        if any(rule.passed is False for rule in rules):
            # What is published stays published: of it this attempt has nothing to say.
            published = {file.id for file in candidates if file.loaded is not None}
            left = tuple(file for file in work.files if file.id not in published)
            work = replace(work, files=left, details={**work.details, "judged": judged})
        return replace(work, rules=rules, files=_still_forgotten(known, work.files))

    perform(active, Stage.VALIDATE, model, settings, job, total=sum(file.size for file in candidates))


def _still_forgotten(known: Known, files: Iterable[FileVersion]) -> tuple[FileVersion, ...]:
    """What an earlier time knew and a person has forgotten since is good for this run, and for no later one."""
    forgotten = known.forgotten()
    return tuple(
        replace(file, status=FileStatus.FORGOTTEN)
        if file.id in forgotten and file.status is FileStatus.VALIDATED
        else file
        for file in files
    )


def _approved(active: Active, rules: Sequence[Rule], contents: approvals.Contents) -> tuple[Rule, ...]:
    if all(rule.passed is not False for rule in rules):
        return tuple(rules)
    with active.session.state.read() as conn:
        chain = decisions.chain(conn, active.pipeline_name)
        order = active.session.pipeline.order
        contents = approvals.with_others(conn, active.pipeline_name, order, contents, rules)
    decisions.verify(chain)
    return approvals.applied(rules, active.batch, contents, chain)


def _stands(
    active: Active,
    known: Known,
    stage: Stage,
    model: str,
    settings: str,
    candidates: Sequence[FileVersion] | None = None,
) -> bool:
    """Whether the stage is done in this run, under these settings, over these files, and what it left holds."""
    row = known.rows.get((stage, model))
    sidecar = row.work() if row is not None else None
    if row is None or sidecar is None or row.status not in (StageStatus.SUCCESS, StageStatus.SKIPPED):
        return False
    if stage in active.again or row.settings != settings or _behind(known.rows, stage, model):
        return False
    if candidates is not None and {file.id for file in sidecar.work.files} != {file.id for file in candidates}:
        return False
    if _is_loaded(active, known, model):
        return True
    if stage is Stage.VALIDATE:
        # The load is made of them, and would refuse what it cannot make again.
        return all(map(active.context().holds, sidecar.work.artifacts))
    lake = active.session.lake
    return all(lake.holds(one.path, one.bytes) for one in sidecar.work.artifacts)


def _is_loaded(active: Active, known: Known, model: str) -> bool:
    """Whether a pipeline that keeps nothing has published the model in this run: nobody reads again what that read."""
    row, validated = known.rows.get((Stage.LOAD, model)), known.rows.get((Stage.VALIDATE, model))
    sidecar = validated.work() if validated is not None else None
    if active.session.pipeline.keeps or row is None or sidecar is None or Stage.LOAD in active.again:
        return False
    if row.status not in (StageStatus.SUCCESS, StageStatus.SKIPPED) or _behind(known.rows, Stage.LOAD, model):
        return False
    alike = {file.id for file in sidecar.work.files} == {file.id for file in ledger.candidates(known.meant, model)}
    return alike and row.settings == _load_settings(active, model)


def _behind(rows: Mapping[tuple[Stage, str], StageRow], stage: Stage, model: str) -> bool:
    """Whether a stage before this one was recorded after it."""
    mine = rows[stage, model]
    before = [rows[other, model] for other in WORK[: WORK.index(stage)] if (other, model) in rows]
    return any((row.token, row.sequence) > (mine.token, mine.sequence) for row in before)


def _side_by_side(active: Active, job: Callable[[str], None]) -> None:
    """Models side by side; when one fails the others come to their end, and what is raised then names them all."""
    failures: dict[str, BaseException] = {}
    if len(active.models) == 1 or active.session.jobs == 1:
        for model in active.models:
            try:
                job(model)
            except (ContractError, GateClosed) as verdict:
                failures[model] = verdict
    else:
        with ThreadPoolExecutor(max_workers=active.session.jobs, thread_name_prefix="model") as pool:
            futures = {model: pool.submit(job, model) for model in active.models}
        failures = {model: error for model, future in futures.items() if (error := future.exception()) is not None}
    if not failures:
        return
    # Bugs and lost leases before all; and a rule that fails tells less than a contract that is broken.
    worst = min(failures, key=lambda model: _weight(failures[model]))
    error, others = failures[worst], [model for model in failures if model != worst]
    if isinstance(error, IngestkitError) and others:
        error.message += f"; {', '.join(others)} failed too (ingestkit runs show {active.run.run_id})"
    raise error


def _weight(error: BaseException) -> int:
    if not isinstance(error, IngestkitError) or isinstance(error, LeaseLost):
        return 0
    return 3 if isinstance(error, GateClosed) else 2 if isinstance(error, ContractError) else 1


def _load(active: Active, known: Known) -> None:
    together = active.session.pipeline.settings.publish == "batch"
    groups = [active.models] if together else [(model,) for model in active.models]
    for group in groups:
        _load_group(active, known, group)


def _load_settings(active: Active, model: str) -> str:
    return active.session.pipeline.load_settings(model, active.run.window)


def _load_group(active: Active, known: Known, models: tuple[str, ...]) -> None:
    waiting = [
        model for model in models if not _stands(active, known, Stage.LOAD, model, _load_settings(active, model))
    ]
    absent = [model for model in waiting if not ledger.file_set(known.meant, model)]
    for model in absent:
        settings = _load_settings(active, model)
        perform(active, Stage.LOAD, model, settings, partial(_nothing, active, known, model))
    passed = [model for model in waiting if model not in absent and model in active.unit.newer]
    for model in passed:
        perform(
            active,
            Stage.LOAD,
            model,
            _load_settings(active, model),
            partial(_passed_over, active, known, model),
        )
    there = tuple(model for model in waiting if model not in absent and model not in passed)
    if not there:
        return

    def job() -> dict[str, Work]:
        return _publish(active, known, there)

    with logging.bound(run_id=active.run.run_id, stage=Stage.LOAD.value):
        works = attempt(active, Stage.LOAD, there, job)
        for model in there:
            record(active, Stage.LOAD, model, _load_settings(active, model), works[model])


def _nothing(active: Active, known: Known, model: str) -> Work:
    """The load of a model without a file; of a target that is built again, what the batch had published is no more."""
    told = "the batch has no file of it"
    if active.run.kind != "restore":
        return Work(skipped=told)
    return Work(
        files=load.let_go(active.context(), _forgotten([file for file in known.files if file.model == model])),
        artifacts=tuple(
            replace(one, status="superseded", token=active.lease.token)
            for one in known.artifacts(model)
            if one.status == "published"
        ),
        skipped=told,
    )


def _forgotten(known: Sequence[FileVersion]) -> tuple[FileVersion, ...]:
    return tuple(file for file in known if file.status is FileStatus.FORGOTTEN and file.loaded)


def _passed_over(active: Active, known: Known, model: str) -> Work:
    """A snapshot that is not loaded, since a newer one waits."""
    newer, run_id, token = active.unit.newer[model], active.run.run_id, active.lease.token
    standing = ledger.file_set(known.meant, model)
    return Work(
        counts=Counts(loaded=0),
        files=tuple(
            replace(file, status=FileStatus.SUPERSEDED, loaded=0, run_id=run_id, token=token) for file in standing
        ),
        details={"superseded_by": newer},
        skipped=f"superseded by {newer}, which waits",
    )


def _publish(active: Active, known: Known, models: Sequence[str]) -> dict[str, Work]:
    """Plan, write down what is meant, publish; again when the target holds another generation than planned."""
    ctx = active.context()
    for _ in range(PLANS):
        receipts = ctx.warehouse.receipts(active.pipeline_name)
        given = _given(active, known, models, receipts)
        planned = {model: load.plan(ctx, given[model], receipts) for model in models}
        with active.lease.transaction() as conn:
            for plan in planned.values():
                if plan.loads:
                    runs.write_intent(conn, active.run.run_id, plan.intent, active.lease.token)
        steps.reached("load.intended")
        expected = {name: rows for model in models for name, rows in _expected(given[model]).items()}
        try:
            published = load.publish(ctx, list(planned.values()), expected)
        except PlanAgain as error:
            active.session.progress.said(f"planning again: {error.message}")
            continue
        for one in given.values():
            tables.drop(ctx, one.model, one.tables)
        return {model: load.read_back(ctx, given[model], planned[model], published) for model in models}
    raise WarehouseError(f"batch {active.batch} could not be published: its target moved {PLANS} times under the plan")


def _given(active: Active, known: Known, models: Sequence[str], receipts: Sequence[Receipt]) -> dict[str, load.Given]:
    name = active.pipeline_name
    with active.session.state.read() as conn:
        intents = runs.intents(conn, active.run.run_id)
        highest = runs.highest_generations(conn, name, active.batch)
        done = completions.whole(conn, name, active.batch)
        newer = {model: _published_newer(active, conn, model, receipts) for model in models}
        evolved = drifts.added(conn, name)
        behind = _behind_newer(active, conn)
    given = {}
    for model in models:
        validated = known.rows[Stage.VALIDATE, model].work()
        made = validated.work.artifacts if validated else ()
        paths = {one.path for one in made}
        files = [file for file in known.files if file.model == model]
        standing = ledger.file_set(known.meant, model)
        kept, redo = intents.get(model, (None, False))
        entry = done.get((active.batch, model))
        given[model] = load.Given(
            model=model,
            files=standing,
            replaced=tuple(file for file in files if file.status in ledger.IN_SET and file not in standing),
            let_go=_forgotten([file for file in files if file.id not in {one.id for one in standing}]),
            forgotten=known.forgotten(),
            made=made,
            others=tuple(one for one in known.artifacts(model) if one.path not in paths),
            kept=kept,
            redo=redo,
            highest=max(highest.get(model, 0), entry[0].generation if entry else 0),
            newer=newer[model],
            meant=active.session.meant(model, active.session.pipeline.model(model)),
            evolved=evolved.get(model, ()),
            stood=_stood(active, entry[0] if entry else None),
            puts_back=active.run.as_of is not None,
            tables=tables.tables_of(validated.work.details) if validated else (),
            behind=behind,
        )
    return given


def _behind_newer(active: Active, conn: sql.Connection) -> str | None:
    """The newest batch that is done, where this is an older one; a target that is built again has none yet."""
    if active.run.kind == "restore":
        return None
    return completions.newest_after(conn, active.pipeline_name, active.batch, active.session.pipeline.order)


def _stood(active: Active, done: Completion | None) -> load.Stood | None:
    """What a target held that is built again. Windows are cut by today's settings."""
    if active.run.kind != "restore" or done is None or done.mode not in (LoadMode.REPLACE, LoadMode.MERGE):
        return None
    keyed = active.session.pipeline.model(done.model).key
    return load.Stood(done.mode, done.digest) if keyed or done.mode is LoadMode.REPLACE else None


def _published_newer(
    active: Active, conn: sql.Connection, model: str, receipts: Sequence[Receipt]
) -> dict[str, tuple[Artifact, ...]]:
    """What newer batches published of a model, by batch."""
    order = active.session.pipeline.order
    newer = [one.batch for one in receipts if one.model == model and order(one.batch) > order(active.batch)]
    kinds = [ArtifactKind.VALID, ArtifactKind.REJECTS]
    found: dict[str, tuple[Artifact, ...]] = {}
    for one in ledger.artifacts(conn, active.pipeline_name, newer, [model], kinds):
        if one.status == "published" and load.tells_keys(one):
            found[one.batch] = (*found.get(one.batch, ()), one)
    return found


def _expected(given: load.Given) -> dict[str, int]:
    """How many rows each load must stage: the valid ones, without those left out for their keys."""
    if given.tables:
        return tables.expected(given.tables)
    valid = sum(one.rows or 0 for one in given.made if one.kind is ArtifactKind.VALID)
    losers = sum(one.rows or 0 for one in given.made if one.kind is ArtifactKind.REJECTS and one.file_id is None)
    return {given.model: valid - losers}


def _dbt(active: Active, known: Known) -> None:
    """Build on what is published. It is done again whenever the run is gone on with, as the gate is."""
    transform = active.session.transform
    if transform is None:
        raise UsageError(f"pipeline {active.pipeline_name} has no stage {Stage.DBT}")

    def job() -> Work:
        works = {model: _works(known.rows, model) for model in active.models}
        ended = tuple(_completion(active, model, works[model]) for model in active.models)
        if not _published(works, ended):
            return Work(skipped="nothing was published")
        if left := sorted(set(active.session.pipeline.models) - _complete(active)):
            return Work(skipped=f"it is built with the last models of the batch: {', '.join(left)} are not done")
        built = dbt.build(active.context(), transform)
        rules = _approved(active, dbt.rules(active.session.pipeline, built), _contents(ended))
        return Work(rules=rules, details=dbt.told(built))

    perform(active, Stage.DBT, "*", active.session.pipeline.dbt_settings(), job)


def _gate(active: Active, known: Known) -> None:
    def job() -> Work:
        works = {model: _works(known.rows, model) for model in active.models}
        ended = tuple(_completion(active, model, works[model]) for model in active.models)
        mine = _published_rules(active, works, ended)
        before = (rule for some in works.values() for work in some.values() for rule in work.rules)
        rules = (*before, *_rules_of_dbt(active, known), *mine)
        rejected = sum(one.counts.rejected or 0 for one in ended)
        verdict = gate.verdict(rules, rejected)
        return Work(
            counts=Counts.total(one.counts for one in ended),
            rules=mine,
            # What is published stays; it only is not done, and nothing is sent on.
            completions=() if verdict is Verdict.FAILED else ended,
            details={"verdict": verdict.value, "rules": [gate.explained(rule) for rule in rules]},
        )

    perform(active, Stage.GATE, "*", active.session.pipeline.gate_settings(), job)


def _published_rules(
    active: Active, works: Mapping[str, Mapping[Stage, Work]], ended: Sequence[Completion]
) -> tuple[Rule, ...]:
    """The rules over what this run published, those approved passed."""
    rules = gate.judged(active.context(), _published(works, ended), _complete(active))
    return _approved(active, rules, _contents(ended))


def _rules_of_dbt(active: Active, known: Known) -> tuple[Rule, ...]:
    row = known.rows.get((Stage.DBT, "*")) if active.session.transform is not None else None
    sidecar = row.work() if row is not None else None
    return sidecar.work.rules if sidecar is not None else ()


def _published(
    works: Mapping[str, Mapping[Stage, Work]], ended: Sequence[Completion]
) -> dict[str, tuple[Counts, Counts]]:
    """What validate and load counted of the models that this run published."""
    loads = {one.model: works[one.model][Stage.LOAD] for one in ended if one.status is CompletionStatus.DONE}
    return {
        model: (works[model][Stage.VALIDATE].counts, work.counts)
        for model, work in loads.items()
        if "intent" in work.details and not work.details.get("superseded_by")
    }


def _complete(active: Active) -> set[str]:
    """The models that are done for the batch with this run."""
    with active.session.state.read() as conn:
        before = {model for (_, model) in completions.whole(conn, active.pipeline_name, active.batch)}
    return before | set(active.models)


def _contents(ended: Sequence[Completion]) -> approvals.Contents:
    return {one.model: {"digest": one.digest, "generation": one.generation} for one in ended}


def _works(rows: Mapping[tuple[Stage, str], StageRow], model: str) -> dict[Stage, Work]:
    found = {}
    for stage in WORK:
        row = rows.get((stage, model))
        sidecar = row.work() if row is not None else None
        if sidecar is not None:
            found[stage] = sidecar.work
    return found


def _completion(active: Active, model: str, works: dict[Stage, Work]) -> Completion:
    loaded = works[Stage.LOAD]
    intent = loaded.details.get("intent")
    if loaded.details.get("superseded_by"):
        before = _done_before(active, model)
        if before is not None and before.generation == loaded.details.get("stays"):
            return replace(before, token=active.lease.token)
        status = CompletionStatus.SUPERSEDED
    elif intent is None:
        # A target that is built again holds nothing of it any more.
        if active.run.kind != "restore" and (before := _done_before(active, model)) is not None:
            return replace(before, token=active.lease.token)
        status = CompletionStatus.EMPTY if active.unit.empty else CompletionStatus.ABSENT
    else:
        status = CompletionStatus.DONE
    counts = replace(
        works[Stage.VALIDATE].counts,
        **{name: value for name, value in loaded.counts.to_json().items() if name != "files"},
    )
    return Completion(
        pipeline=active.pipeline_name,
        batch=active.batch,
        model=model,
        status=status,
        mode=LoadMode(intent["mode"]) if intent else None,
        generation=intent["generation"] if intent else 0,
        digest=intent["digest"] if intent else None,
        settings=intent["settings"] if intent else None,
        run_id=active.run.run_id,
        counts=counts,
        token=active.lease.token,
        window_end=active.run.window.end if active.run.window is not None else None,
    )


def _done_before(active: Active, model: str) -> Completion | None:
    """A model that was published keeps its completion when its files are gone: the target is left as it is."""
    with active.session.state.read() as conn:
        entry = completions.whole(conn, active.pipeline_name, active.batch).get((active.batch, model))
    return entry[0] if entry is not None and entry[0].status is CompletionStatus.DONE else None
