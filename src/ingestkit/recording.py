"""Doing one stage and writing of it: begin, retry, time-out, sidecar, then rows, or the queue where they fail."""

import json
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import tenacity

from ingestkit import attempts, files, metering, steps
from ingestkit.active import Active
from ingestkit.errors import (
    Busy,
    ContractError,
    Fenced,
    GateClosed,
    IngestkitError,
    Interrupted,
    LeaseLost,
    SourceError,
    StateError,
    TargetError,
)
from ingestkit.lake import shown_folder
from ingestkit.model import (
    Rule,
    Sidecar,
    Stage,
    StageStatus,
    Work,
)
from ingestkit.observe import logging
from ingestkit.session import Session
from ingestkit.settings import Retry
from ingestkit.stages import gate
from ingestkit.states import sidecars, stage_rows
from ingestkit.states.queue import PendingRecord
from ingestkit.states.stage_totals import Growth

OF_REJECTS = ("reject_rate", "file_reject_rate", "loss", "whole_files")
"""Rules whose failure is looked at record by record."""


def perform(
    active: Active, stage: Stage, model: str, settings: str, job: Callable[[], Work], *, total: int | None = None
) -> None:
    ids = metering.ids(active, stage.value, model)
    with logging.bound(run_id=active.run.run_id, stage=stage.value, model=model, **ids):
        works = attempt(active, stage, (model,), lambda: {model: job()}, total=total)
        record(active, stage, model, settings, works[model])


def attempt(
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
        _end_badly(active, stage, models, StageStatus.INTERRUPTED, error)
        raise
    except StateError:
        # The state itself does not answer; what was done is found by the next run, from the lake and the receipt.
        raise
    except IngestkitError as error:
        _end_badly(active, stage, models, StageStatus.FAILED, error)
        raise


def record(active: Active, stage: Stage, model: str, settings: str, work: Work) -> None:
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
            written = sidecars.apply(conn, sidecar, path, session.clock.now())
            counted = metering.recorded(session, conn, sidecar) if written else []
    except StateError as error:
        _queue(session, sidecar)
        raise StateError(
            f"{stage.value} of {model} is done, but the state could not be written: {error.message}",
            hint=f"its rows wait in {session.queue.path}; the next run writes them",
        ) from error
    steps.reached(f"{stage.value}.recorded")
    metering.note(session, counted)
    metering.spent(active, counted)
    status = sidecars.status_of(sidecar)
    session.progress.ended(stage.value, model, status.value)
    if status is StageStatus.FAILED:
        raise _closed(active, stage, work.rules)


def _closed(active: Active, stage: Stage, rules: Sequence[Rule]) -> IngestkitError:
    """The error a verdict ends in: what failed, how to look at it, and how to let it pass where a person may."""
    failed = [rule for rule in rules if rule.passed is False]
    # What nobody can read is what is to be looked at; other rules are then judged over too little.
    failed = [rule for rule in failed if rule.contract and not rule.approvable] or failed
    behind = "nothing was published" if stage is Stage.VALIDATE else "nothing is sent on"
    run_id, pipeline = active.run.run_id, active.pipeline_name
    look = f"ingestkit runs show {shlex.quote(run_id)}"
    if any(rule.name in OF_REJECTS for rule in failed):
        look = f"ingestkit quarantine list {pipeline} --batch {shlex.quote(active.batch)}"
    if all(rule.approvable for rule in failed):
        look += f"; to let it pass: ingestkit approve {shlex.quote(run_id)} --reason '...'"
    broken = any(rule.contract for rule in failed)
    error = (ContractError if broken else GateClosed)(f"{gate.failures(failed)}: {behind}", hint=look)
    error.incident = next((gate.TOLD_AS[rule.name] for rule in failed if rule.name in gate.TOLD_AS), None)
    return error


def _show(session: Session, sidecar: Sidecar, path: str) -> None:
    """The copy under the state folder is for people; nothing reads it."""
    _for_people(session, sidecar.run_id, sidecar.stage, sidecar.model, sidecar.to_json() | {"lake": path})


def _show_failure(active: Active, stage: Stage, model: str, status: StageStatus, error: IngestkitError) -> None:
    """What there is of a stage that left nothing to go on with: only people are told."""
    run = active.run
    told: dict[str, Any] = {
        "pipeline": active.pipeline_name,
        "run_id": run.run_id,
        "batch": active.batch,
        "stage": stage.value,
    }
    told |= {"model": model, "status": status.value, "error": error.message, "hint": error.hint}
    _for_people(active.session, run.run_id, stage, model, {"v": 1, **told, "details": dict(error.details)})


def _for_people(session: Session, run_id: str, stage: Stage, model: str, shown: Mapping[str, Any]) -> None:
    folder = shown_folder(session.folder, session.pipeline.name, run_id)
    name = f"{stage.value}.{'_all' if model == '*' else model}.json"
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
    session = active.session
    now = session.clock.now()
    counted: list[Growth] = []
    with active.lease.transaction() as conn:
        for model in models:
            retry = stage_rows.begin(conn, active.run, stage, model, active.lease.token, now)
            counted += metering.retried(session, conn, stage, model, retry)
    metering.note(session, counted)


def _end_badly(active: Active, stage: Stage, models: Sequence[str], status: StageStatus, error: IngestkitError) -> None:
    session = active.session
    counted: list[Growth] = []
    with active.lease.transaction() as conn:
        for model in models:
            now = session.clock.now()
            stage_rows.end_badly(conn, active.run.run_id, stage, model, status, error, now)
            counted += metering.ended_badly(active, conn, stage, model, status, now)
    metering.note(session, counted)
    metering.spent(active, counted)
    for model in models:
        _show_failure(active, stage, model, status, error)
        session.progress.ended(stage.value, model, status.value)


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


def _limit(active: Active, stage: Stage) -> tuple[timedelta | None, str]:
    """How long a stage may take, and the setting that says it."""
    settings = active.session.pipeline.settings
    if stage is Stage.DBT:
        return (None if settings.dbt is None else settings.dbt.timeout), "dbt.timeout"
    return getattr(
        settings.timeouts, "validate_" if stage is Stage.VALIDATE else stage.value
    ), f"timeouts.{stage.value}"


@contextmanager
def _time_limit(active: Active, stage: Stage, models: Sequence[str]) -> Iterator[None]:
    """Past its time the stage is asked to stop at a safe point; past the grace the process records it and ends."""
    timeouts = active.session.pipeline.settings.timeouts
    limit, setting = _limit(active, stage)
    if limit is None:
        yield
        return
    error_type = SourceError if stage is Stage.EXTRACT else TargetError
    message = f"{stage.value} of {', '.join(models)} ran longer than its time-out of {limit.total_seconds():g} s"
    error = error_type(message, hint=f"raise {setting} of pipeline {active.pipeline_name}")

    def give_up() -> None:
        with ending:
            if not over.is_set():
                _end_process(active, stage, models, error)

    def reason() -> IngestkitError:
        return error

    ending, over = threading.Lock(), threading.Event()

    def ask() -> None:
        with ending:
            if not over.is_set():
                active.session.stop.request(reason)
                last.start()

    first = threading.Timer(limit.total_seconds(), ask)
    last = threading.Timer(timeouts.grace.total_seconds(), give_up)
    first.daemon = last.daemon = True
    first.start()
    try:
        yield
    finally:
        with ending:
            over.set()
            first.cancel()
            last.cancel()
            # What comes behind it has its own time.
            active.session.stop.withdraw(reason)


def _end_process(active: Active, stage: Stage, models: Sequence[str], error: IngestkitError) -> None:
    """Record that the stage failed where the state answers, and end the process: nothing else ends what hangs."""
    try:
        deaf = type(error)(f"{error.message}, and did not stop when asked")
        _end_badly(active, stage, models, StageStatus.FAILED, deaf)
        attempts.fail(active.session, active.lease, active.run, error.message, error.exit_code)
    except IngestkitError as unwritten:
        active.session.progress.warned(f"that {error.message} could not be written: {unwritten.message}")
    finally:
        active.session.stop.abort(error)
