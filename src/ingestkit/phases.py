"""One run's stages, done and recorded: retry, time-outs, sidecars, rows. Stages do the work; only this writes of it."""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import tenacity

from ingestkit import attempts, files, steps
from ingestkit.discover import Unit, is_absent, one_batch
from ingestkit.errors import (
    Busy,
    Fenced,
    GateClosed,
    IngestkitError,
    Interrupted,
    LeaseLost,
    PlanAgain,
    SourceError,
    StateError,
    TargetError,
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
    Item,
    Receipt,
    Rule,
    Sidecar,
    Stage,
    StageStatus,
    Work,
    safe_name,
    sha256_of,
)
from ingestkit.observe import logging
from ingestkit.pipeline import RunContext
from ingestkit.session import Session
from ingestkit.settings import Retry
from ingestkit.stages import clean, extract, gate, load
from ingestkit.states import completions, ledger, quarantine, runs, sidecars, stage_rows
from ingestkit.states.lease import Lease
from ingestkit.states.queue import PendingRecord
from ingestkit.states.runs import Run
from ingestkit.states.stage_rows import StageRow

PLANS = 5
"""How often a publish is planned anew because the target moved under it."""
WORK = (Stage.EXTRACT, Stage.VALIDATE, Stage.LOAD)
"""The stages that have one row per model."""


@dataclass(frozen=True, slots=True)
class Active:
    """A run being worked on: its models that are open and held, and what this command has recorded of it."""

    session: Session
    lease: Lease
    run: Run
    models: tuple[str, ...]
    unit: Unit
    again: frozenset[Stage] = frozenset()
    """Stages to be done again whatever is there."""
    previous_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of the newest done batch before this one, by model: what a row delta is judged against."""
    sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def batch(self) -> str:
        assert self.run.batch is not None
        return self.run.batch

    @property
    def pipeline_name(self) -> str:
        return self.session.pipeline.name

    def context(self) -> RunContext:
        session = self.session
        return RunContext(
            pipeline=session.pipeline,
            run_id=self.run.run_id,
            batch=self.batch,
            token=self.lease.token,
            state_id=self.lease.state_id,
            source=session.source,
            lake=session.lake,
            warehouse=session.warehouse,
            scratch=session.scratch / safe_name(f"{self.run.run_id}.{self.lease.token}"),
            clock=session.clock,
            stop=session.stop,
            progress=session.progress,
            threads=session.jobs,
            memory_limit=_share(session.settings.memory_limit, min(session.jobs, len(self.models))),
            facts={"previous_rows": self.previous_rows},
        )

    def rows(self) -> dict[tuple[Stage, str], StageRow]:
        with self.session.state.read() as conn:
            return stage_rows.of_run(conn, self.run.run_id)

    def known_files(self) -> list[FileVersion]:
        with self.session.state.read() as conn:
            return ledger.versions(conn, self.pipeline_name, [self.batch])

    def artifacts(self, model: str) -> list[Artifact]:
        with self.session.state.read() as conn:
            return ledger.artifacts(conn, self.pipeline_name, [self.batch], model)


def do_stage(active: Active, stage: Stage) -> None:
    """Do one stage of the run for all its models; what is done already and holds stays."""
    match stage:
        case Stage.EXTRACT:
            _side_by_side(active, partial(_extract, active))
        case Stage.VALIDATE:
            _side_by_side(active, partial(_validate, active))
        case Stage.LOAD:
            _load(active)
        case Stage.GATE:
            _gate(active)
        case Stage.CLEAN:
            _clean(active)
        case _:
            raise UsageError(f"pipeline {active.pipeline_name} has no stage {stage}")


# --- extract, validate -----------------------------------------------------------------------------------------------


def _extract(active: Active, model: str) -> None:
    settings = active.session.pipeline.extract_settings()
    wanted = active.unit.wanted.get(model, ())
    tries = itertools.count()
    if not wanted and _stands(active, Stage.EXTRACT, model, settings):
        return

    def job() -> Work:
        if is_absent(active.session, active.unit, model, active.known_files()):
            return Work(skipped="the batch has no file of it")
        left = wanted if next(tries) == 0 else _sighted_again(active, model)
        return extract.extract(active.context(), model, left, ledger.candidates(active.known_files(), model))

    _perform(active, Stage.EXTRACT, model, settings, job, total=sum(item.size for _, item in wanted))


def _sighted_again(active: Active, model: str) -> tuple[tuple[FileVersion, Item], ...]:
    """What is still to be fetched, as the source shows it now: a file that changed under the first try is another."""
    unit, blocked = one_batch(active.session, active.lease, active.batch, [model])
    if unit is None:
        raise SourceError(f"batch {active.batch}: {blocked}", hint=f"ingestkit run {active.pipeline_name}, later")
    return unit.wanted.get(model, ())


def _validate(active: Active, model: str) -> None:
    settings = active.session.pipeline.validate_settings(model)
    candidates = ledger.candidates(active.known_files(), model)
    again = Stage.VALIDATE in active.again
    if not again and _stands(active, Stage.VALIDATE, model, settings, candidates):
        return

    def job() -> Work:
        if not candidates:
            return Work(skipped="the batch has no file of it")
        if model in active.unit.newer:
            counts = Counts(files=len(candidates), bytes=sum(file.size for file in candidates))
            return Work(counts=counts, skipped=f"superseded by {active.unit.newer[model]}, which waits")
        return active.session.validate(active.context(), model, candidates, active.artifacts(model), again=again)

    _perform(active, Stage.VALIDATE, model, settings, job, total=sum(file.size for file in candidates))


def _stands(
    active: Active, stage: Stage, model: str, settings: str, candidates: Sequence[FileVersion] | None = None
) -> bool:
    """Whether the stage is done in this run, under these settings, over these files, and what it left holds."""
    rows = active.rows()
    row = rows.get((stage, model))
    sidecar = row.work() if row is not None else None
    if row is None or sidecar is None or row.status not in (StageStatus.SUCCESS, StageStatus.SKIPPED):
        return False
    if stage in active.again or row.settings != settings or _behind(rows, stage, model):
        return False
    if candidates is not None and {file.id for file in sidecar.work.files} != {file.id for file in candidates}:
        return False
    lake = active.session.lake
    return all(lake.holds(one.path, one.bytes) for one in sidecar.work.artifacts)


def _behind(rows: dict[tuple[Stage, str], StageRow], stage: Stage, model: str) -> bool:
    """Whether a stage before this one was recorded after it."""
    mine = rows[stage, model]
    before = [rows[other, model] for other in WORK[: WORK.index(stage)] if (other, model) in rows]
    return any((row.token, row.sequence) > (mine.token, mine.sequence) for row in before)


def _side_by_side(active: Active, job: Callable[[str], None]) -> None:
    """Models side by side; when one fails the others come to their end, and then the first failure is raised."""
    if len(active.models) == 1 or active.session.jobs == 1:
        for model in active.models:
            job(model)
        return
    with ThreadPoolExecutor(max_workers=active.session.jobs, thread_name_prefix="model") as pool:
        futures = [pool.submit(job, model) for model in active.models]
    failures = [error for future in futures if (error := future.exception()) is not None]
    if failures:
        raise next((one for one in failures if isinstance(one, LeaseLost)), failures[0])


# --- load ------------------------------------------------------------------------------------------------------------


def _load(active: Active) -> None:
    together = active.session.pipeline.settings.publish == "batch"
    groups = [active.models] if together else [(model,) for model in active.models]
    for group in groups:
        _load_group(active, group)


def _load_group(active: Active, models: tuple[str, ...]) -> None:
    pipeline = active.session.pipeline
    waiting = [model for model in models if not _stands(active, Stage.LOAD, model, pipeline.load_settings(model))]
    absent = [model for model in waiting if not ledger.file_set(active.known_files(), model)]
    for model in absent:
        settings = pipeline.load_settings(model)
        _perform(active, Stage.LOAD, model, settings, lambda: Work(skipped="the batch has no file of it"))
    passed = [model for model in waiting if model not in absent and model in active.unit.newer]
    for model in passed:
        _perform(active, Stage.LOAD, model, pipeline.load_settings(model), partial(_passed_over, active, model))
    there = tuple(model for model in waiting if model not in absent and model not in passed)
    if not there:
        return

    def job() -> dict[str, Work]:
        return _publish(active, there)

    with logging.bound(run_id=active.run.run_id, stage=Stage.LOAD.value):
        works = _attempt(active, Stage.LOAD, there, job)
        for model in there:
            _record(active, Stage.LOAD, model, pipeline.load_settings(model), works[model])


def _passed_over(active: Active, model: str) -> Work:
    """A snapshot that is not loaded, since a newer one waits."""
    newer, run_id, token = active.unit.newer[model], active.run.run_id, active.lease.token
    standing = ledger.file_set(active.known_files(), model)
    return Work(
        counts=Counts(loaded=0),
        files=tuple(
            replace(file, status=FileStatus.SUPERSEDED, loaded=0, run_id=run_id, token=token) for file in standing
        ),
        details={"superseded_by": newer},
        skipped=f"superseded by {newer}, which waits",
    )


def _publish(active: Active, models: Sequence[str]) -> dict[str, Work]:
    """Plan, write down what is meant, publish; again when the target holds another generation than planned."""
    ctx = active.context()
    for _ in range(PLANS):
        receipts = ctx.warehouse.receipts(active.pipeline_name)
        given = {model: _given(active, model, receipts) for model in models}
        planned = {model: load.plan(ctx, given[model], receipts) for model in models}
        with active.lease.transaction() as conn:
            for plan in planned.values():
                if plan.load is not None:
                    runs.write_intent(conn, active.run.run_id, plan.intent, active.lease.token)
        steps.reached("load.intended")
        expected = {model: _expected(given[model]) for model in models}
        try:
            standing, rules = load.publish(ctx, list(planned.values()), expected)
        except PlanAgain as error:
            active.session.progress.said(f"planning again: {error.message}")
            continue
        return {
            model: load.read_back(ctx, given[model], planned[model], standing.get(model), rules.get(model, ()))
            for model in models
        }
    raise WarehouseError(f"batch {active.batch} could not be published: its target moved {PLANS} times under the plan")


def _given(active: Active, model: str, receipts: Sequence[Receipt]) -> load.Given:
    validated = active.rows()[Stage.VALIDATE, model].work()
    made = validated.work.artifacts if validated else ()
    paths = {one.path for one in made}
    order = active.session.pipeline.order
    newer = [one.batch for one in receipts if one.model == model and order(one.batch) > order(active.batch)]
    with active.session.state.read() as conn:
        kept, redo = runs.intents(conn, active.run.run_id).get(model, (None, False))
        highest = runs.highest_generation(conn, active.pipeline_name, active.batch, model)
        done = completions.whole(conn, active.pipeline_name, active.batch).get((active.batch, model))
        found = ledger.artifacts(conn, active.pipeline_name, newer, model, [ArtifactKind.VALID])
    known = [file for file in active.known_files() if file.model == model]
    standing = ledger.file_set(known, model)
    by_batch: dict[str, list[Artifact]] = {}
    for one in found:
        if one.status == "published":
            by_batch.setdefault(one.batch, []).append(one)
    return load.Given(
        model=model,
        files=standing,
        replaced=tuple(file for file in known if file.status in ledger.IN_SET and file not in standing),
        made=made,
        others=tuple(one for one in active.artifacts(model) if one.path not in paths),
        kept=kept,
        redo=redo,
        highest=max(highest, done[0].generation if done else 0),
        newer={batch: tuple(some) for batch, some in by_batch.items()},
    )


def _expected(given: load.Given) -> int:
    """How many rows must be staged: the valid ones, without those left out for their keys."""
    valid = sum(one.rows or 0 for one in given.made if one.kind is ArtifactKind.VALID)
    return valid - sum(one.rows or 0 for one in given.made if one.kind is ArtifactKind.REJECTS and one.file_id is None)


# --- gate, clean -----------------------------------------------------------------------------------------------------


def _gate(active: Active) -> None:
    def job() -> Work:
        rows = active.rows()
        works = {model: _works(rows, model) for model in active.models}
        rules = tuple(rule for some in works.values() for work in some.values() for rule in work.rules)
        completions = tuple(_completion(active, model, works[model]) for model in active.models)
        rejected = sum(one.counts.rejected or 0 for one in completions)
        verdict = gate.verdict(rules, rejected)
        return Work(
            counts=Counts.total(one.counts for one in completions),
            completions=completions,
            details={"verdict": verdict.value, "rules": [gate.explained(rule) for rule in rules]},
        )

    _perform(active, Stage.GATE, "*", active.session.pipeline.gate_settings(), job)


def _works(rows: dict[tuple[Stage, str], StageRow], model: str) -> dict[Stage, Work]:
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
    mode = active.session.pipeline.model(model).load
    if loaded.details.get("superseded_by"):
        status = CompletionStatus.SUPERSEDED
    elif intent is None:
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
        mode=mode if intent else None,
        generation=intent["generation"] if intent else 0,
        digest=intent["digest"] if intent else None,
        settings=intent["settings"] if intent else None,
        run_id=active.run.run_id,
        counts=counts,
        token=active.lease.token,
    )


def _clean(active: Active) -> None:
    """Tidy behind the run. A clean that fails warns: nothing hangs on it."""

    def job() -> Work:
        details = {}
        for model in active.models:
            found = clean.debris(active.context(), model, active.known_files(), active.artifacts(model))
            found += _expired(active, model)
            clean.remove(active.context(), found)
            with active.lease.transaction() as conn:
                ledger.mark_removed(conn, found, active.session.clock.now())
            details[model] = len(found)
        clean.remove_scratch(active.context().scratch)
        return Work(details={"removed": details})

    try:
        _perform(active, Stage.CLEAN, "*", sha256_of(str(active.session.pipeline.settings.retention)), job)
    except (LeaseLost, Interrupted):
        raise
    except IngestkitError as error:
        active.session.progress.warned(f"clean failed and is left to the next run: {error.message}")


def _expired(active: Active, model: str) -> list[str]:
    """Objects of batches that retention no longer keeps, but for those with rejects that wait for a person."""
    session = active.session
    with session.state.read() as conn:
        theirs = completions.whole(conn, active.pipeline_name, model=model)
        done = {batch: entry for (batch, _), entry in theirs.items()}
        old = clean.expired(session.pipeline, done, session.clock.now())
        waiting = quarantine.batches_waiting(conn, active.pipeline_name, model)
        kept = [batch for batch in old if batch not in waiting]
        return [one.path for one in ledger.artifacts(conn, active.pipeline_name, kept, model)]


# --- doing and recording ---------------------------------------------------------------------------------------------


def _perform(
    active: Active, stage: Stage, model: str, settings: str, job: Callable[[], Work], *, total: int | None = None
) -> None:
    with logging.bound(run_id=active.run.run_id, stage=stage.value, model=model):
        works = _attempt(active, stage, (model,), lambda: {model: job()}, total=total)
        _record(active, stage, model, settings, works[model])


def _attempt(
    active: Active,
    stage: Stage,
    models: Sequence[str],
    job: Callable[[], dict[str, Work]],
    *,
    total: int | None = None,
) -> dict[str, Work]:
    """Begin the stage, do it with retries within its time, and say in its rows how it went when it did not."""
    _begin(active, stage, models)
    for model in models:
        active.session.progress.began(stage.value, model, total)
    steps.reached(f"{stage.value}.begun")
    try:
        with _time_limit(active, stage, models):
            return _retrying(active, stage, models)(job)
    except (LeaseLost, Fenced):
        raise
    except (Interrupted, Busy) as error:
        _end_badly(active, stage, models, StageStatus.INTERRUPTED, error.message)
        raise
    except StateError:
        # The state itself does not answer; what was done is found by the next run, from the lake and the receipt.
        raise
    except IngestkitError as error:
        _end_badly(active, stage, models, StageStatus.FAILED, error.message)
        raise


def _record(active: Active, stage: Stage, model: str, settings: str, work: Work) -> None:
    """Leave the sidecar in the lake, then write its rows; rows that cannot be written go to the pending queue."""
    session = active.session
    sidecar = Sidecar(
        pipeline=active.pipeline_name,
        run_id=active.run.run_id,
        batch=active.batch,
        stage=stage,
        model=model,
        token=active.lease.token,
        sequence=next(active.sequence),
        settings=settings,
        at=session.clock.now(),
        work=work,
        run=active.run.facts(),
    )
    steps.reached(f"{stage.value}.done")
    path = session.lake.write_sidecar(active.context().place(active.models[0]), sidecar)
    steps.reached(f"{stage.value}.sidecar_written")
    _show(session, sidecar, path)
    try:
        with active.lease.transaction() as conn:
            sidecars.apply(conn, sidecar, path, session.clock.now())
    except StateError as error:
        _queue(session, sidecar)
        raise StateError(
            f"{stage.value} of {model} is done, but the state could not be written: {error.message}",
            hint=f"its rows wait in {session.queue.path}; the next run writes them",
        ) from error
    steps.reached(f"{stage.value}.recorded")
    status = sidecars.status_of(sidecar)
    session.progress.ended(stage.value, model, status.value)
    if status is StageStatus.FAILED:
        raise _closed(active, stage, work.rules)


def _closed(active: Active, stage: Stage, rules: Sequence[Rule]) -> GateClosed:
    failed = "; ".join(gate.explained(rule) for rule in rules if rule.passed is False)
    behind = "nothing was published" if stage is Stage.VALIDATE else "nothing is sent on"
    return GateClosed(f"{failed}: {behind}", hint=f"ingestkit runs show {active.run.run_id}")


def _show(session: Session, sidecar: Sidecar, path: str) -> None:
    """The copy under the state folder is for people; nothing reads it."""
    folder = session.folder / "runs" / sidecar.pipeline / safe_name(sidecar.run_id)
    name = f"{sidecar.stage.value}.{'_all' if sidecar.model == '*' else sidecar.model}.json"
    shown = sidecar.to_json() | {"lake": path}
    try:
        files.replace_whole(folder / name, json.dumps(shown, indent=1).encode())
    except OSError as error:
        session.progress.warned(f"the sidecar for people could not be written: {folder / name}: {error.strerror}")


def _queue(session: Session, sidecar: Sidecar) -> None:
    session.queue.append(
        PendingRecord(
            pipeline=sidecar.pipeline,
            model=sidecar.model,
            kind="stage",
            key=(sidecar.run_id, sidecar.stage.value, sidecar.model),
            token=sidecar.token,
            sequence=sidecar.sequence,
            row=sidecar.to_json(),
        )
    )


def _begin(active: Active, stage: Stage, models: Sequence[str]) -> None:
    now = active.session.clock.now()
    with active.lease.transaction() as conn:
        for model in models:
            stage_rows.begin(conn, active.run, stage, model, active.lease.token, now)


def _end_badly(active: Active, stage: Stage, models: Sequence[str], status: StageStatus, error: str) -> None:
    with active.lease.transaction() as conn:
        for model in models:
            stage_rows.end_badly(conn, active.run.run_id, stage, model, status, error, active.session.clock.now())
    for model in models:
        active.session.progress.ended(stage.value, model, status.value)


def _retrying(active: Active, stage: Stage, models: Sequence[str]) -> tenacity.Retrying:
    settings = active.session.pipeline.settings.retry

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        active.session.progress.warned(
            f"{stage.value} of {', '.join(models)} failed and is tried again in {wait:.1f} s: {error}"
        )

    def after_sleep(seconds: float) -> None:
        active.session.stop.wait(seconds)
        _begin(active, stage, models)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, IngestkitError) and error.transient),
        stop=tenacity.stop_after_attempt(settings.attempts),
        wait=waits(settings),
        sleep=after_sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


def waits(settings: Retry) -> Callable[[tenacity.RetryCallState], float]:
    """How long to wait before each further attempt, with jitter so that many do not come back at once."""
    first, cap = settings.first_wait.total_seconds(), settings.cap.total_seconds()
    growing: tenacity.wait.wait_base
    match settings.backoff:
        case "exponential":
            growing = tenacity.wait_exponential(multiplier=first, max=cap) + tenacity.wait_random(0, first)
        case "linear":
            growing = tenacity.wait_incrementing(first, first, cap) + tenacity.wait_random(0, first / 2)
        case _:
            growing = tenacity.wait_fixed(first) + tenacity.wait_random(0, first / 2)
    return lambda state: min(growing(state), cap)


@contextmanager
def _time_limit(active: Active, stage: Stage, models: Sequence[str]) -> Iterator[None]:
    """Past its time the stage is asked to stop at a safe point; past the grace the process records it and ends."""
    timeouts = active.session.pipeline.settings.timeouts
    limit: timedelta | None = getattr(timeouts, "validate_" if stage is Stage.VALIDATE else stage.value)
    if limit is None:
        yield
        return
    error_type = SourceError if stage is Stage.EXTRACT else TargetError
    message = f"{stage.value} of {', '.join(models)} ran longer than its time-out of {limit.total_seconds():g} s"
    error = error_type(message, hint=f"raise timeouts.{stage.value} of pipeline {active.pipeline_name}")

    def give_up() -> None:
        _end_badly(active, stage, models, StageStatus.FAILED, f"{message}, and did not stop when asked")
        attempts.fail(active.session, active.lease, active.run, message, error.exit_code)
        active.session.stop.abort(error)

    def ask() -> None:
        active.session.stop.request(lambda: error)
        last.start()

    first = threading.Timer(limit.total_seconds(), ask)
    last = threading.Timer(timeouts.grace.total_seconds(), give_up)
    first.daemon = last.daemon = True
    first.start()
    try:
        yield
    finally:
        first.cancel()
        last.cancel()


def previous_rows(session: Session, before: str) -> dict[str, int]:
    """Rows of the newest done batch before this one, by model."""
    order = session.pipeline.order
    with session.state.read() as conn:
        done = completions.done(conn, session.pipeline.name)
        older = (
            (batch, model)
            for (batch, model), (status, _) in done.items()
            if status is CompletionStatus.DONE and order(batch) < order(before)
        )
        newest = {
            model: completions.whole(conn, session.pipeline.name, batch)[batch, model][0].counts.valid
            for model, batch in completions.newest(older, order).items()
        }
    return {model: valid for model, valid in newest.items() if valid is not None}


def _share(limit: str, among: int) -> str:
    """An equal part of a memory limit for each of so many models side by side."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", limit)
    assert match is not None
    return (
        f"{float(match[1]) / among:.0f}{match[2]}" if match[2][0] == "M" else f"{float(match[1]) / among:.3f}{match[2]}"
    )
