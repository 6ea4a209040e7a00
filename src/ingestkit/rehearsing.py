"""What a run would do, tried on copies: which batches and files, what of them is valid, and how it would be judged."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute
import pyarrow.parquet
import sqlalchemy as sql

from ingestkit import attempts
from ingestkit.active import Active, usual_rows
from ingestkit.contract import compile_contract
from ingestkit.discover import Found, discover
from ingestkit.errors import ContractError, GateClosed, IngestkitError, WarehouseError
from ingestkit.formats import names_in
from ingestkit.header import Compared, compare_header
from ingestkit.model import ArtifactKind, Counts, FileStatus, Item, LoadMode, Rule, Stage
from ingestkit.outcome import ModelResult, Outcome
from ingestkit.phases import do_stage
from ingestkit.ports import TargetColumn
from ingestkit.reporting import many, results_of
from ingestkit.runner import holding
from ingestkit.session import Session
from ingestkit.settings import Freshness
from ingestkit.sighting import Unit
from ingestkit.stages import gate
from ingestkit.states import drifts, ledger, stage_rows
from ingestkit.states.lease import Lease
from ingestkit.states.tables import lease as lease_table
from ingestkit.working import RunOptions, active_run

JUDGED = {True: "passed", False: "failed", None: "not judged"}


def plan(session: Session, options: RunOptions) -> dict[str, Any]:
    """What `run` would take: batches, files and why, and the statements its target would be changed by."""
    with _rehearsal(session, options) as lease:
        found = discover(session, lease, only=options.batch, limit=options.limit)
        if found.failure is not None:
            raise found.failure
        batches = [_planned_batch(session, unit) for unit in found.units]
        ddl = {model: _ddl(session, model, found) for model in lease.models}
    return {
        "pipeline": session.pipeline.name,
        "checkpoint": found.checkpoint,
        "batches": [{name: one[name] for name in ("batch", "reason", "models")} for one in batches],
        "files": [file for one in batches for file in one["files"]],
        "waiting": [{"batch": batch, "why": why} for batch, why in found.waiting.items()],
        "late": list(found.late),
        "unmapped": list(found.unmapped),
        "ddl": [{"model": model, **one} for model, some in ddl.items() for one in some],
    }


def rehearse(session: Session, options: RunOptions, rows: int | None) -> Outcome:
    """Extract, validate and judge what waits, as `run` would, in folders that nobody else looks at."""
    results: list[ModelResult] = []
    rules: list[Any] = []
    tried: dict[str, dict[str, int]] = {}
    failure: IngestkitError | None = None
    with _rehearsal(session, options) as lease:
        found = discover(session, lease, only=options.batch, limit=options.limit)
        for unit in found.units:
            run = attempts.open_new(session, lease, unit.batch, unit.models, kind="run", command="run")
            active = replace(active_run(session, lease, run, unit), rows_at_most=rows)
            if rows is None:
                active = replace(active, usual_rows=usual_rows(session, unit.batch, tried))
            failure = _tried(active)
            behind = _behind(active) if failure is None else []
            failure = failure or _closed(behind)
            done = results_of(session, run, unit.models, Stage.VALIDATE)
            tried[unit.batch] = {one.model: one.rows for one in done if one.rows is not None}
            results += done
            rules += [
                {"batch": unit.batch, **rule.to_json(), "judged": JUDGED[rule.passed]}
                for rule in (*_rules(active), *behind)
            ]
            if failure is not None:
                break
        failure = failure or found.failure
    told = f"tried {many(len({one.batch for one in results}), 'batch', 'batches')}, and changed nothing"
    if not found.units:
        told = "nothing new to try"
    if failure is not None:
        told = f"a run would end with exit {failure.exit_code}: {failure.message}"
    code = failure.exit_code if failure is not None else 0
    status = "done" if failure is None else "failed"
    return Outcome("run", session.pipeline.name, status, told, tuple(results), rules=tuple(rules), exit_code=code)


def _rehearsal(session: Session, options: RunOptions) -> AbstractContextManager[Lease]:
    """Hold the models in the copy of the state, where the leases of others were copied with it."""
    with session.state.write() as conn:
        conn.execute(sql.update(lease_table).values(owner=None, expires=None))
    return holding(session, session.pipeline.check_models(options.models), "run --dry-run", "fail")


def _tried(active: Active) -> IngestkitError | None:
    try:
        for stage in (Stage.EXTRACT, Stage.VALIDATE):
            active.session.stop.check()
            do_stage(active, stage)
    except (GateClosed, ContractError) as error:
        return error
    return None


def _rules(active: Active) -> list[Rule]:
    with active.session.state.read() as conn:
        rows = stage_rows.of_run(conn, active.run.run_id)
    works = [row.work() for (stage, _), row in sorted(rows.items()) if stage is Stage.VALIDATE]
    return [rule for sidecar in works if sidecar is not None for rule in sidecar.work.rules]


def _behind(active: Active) -> list[Rule]:
    """The rules of gate, as far as they can be told before anything is published; SQL of one's own cannot."""
    ctx = active.context()
    with active.session.state.read() as conn:
        rows = stage_rows.of_run(conn, active.run.run_id)
    found: list[Rule] = []
    for model in active.models:
        sidecar = rows[Stage.VALIDATE, model].work()
        if sidecar is None or sidecar.work.skipped:
            continue
        counts = sidecar.work.counts
        limits = ctx.pipeline.limits(model)
        found += gate.loss(model, counts, Counts(loaded=counts.valid), limits.max_loss_pct)
        if limits.freshness is not None:
            paths = [ctx.lake.store.path(one.path) for one in sidecar.work.artifacts if one.kind is ArtifactKind.VALID]
            found.append(gate.freshness(ctx, model, limits.freshness, _newest(active, model, paths, limits.freshness)))
    asked = (check for check in ctx.pipeline.checks if set(check.models) & set(active.models))
    found += [Rule(check.name, Stage.GATE, ", ".join(check.models), None, 0, None) for check in asked]
    return found


def _newest(active: Active, model: str, paths: Sequence[Path], asked: Freshness) -> Any:
    """The newest value there would be in the target."""
    values = [
        pyarrow.compute.max(pyarrow.parquet.read_table(path, columns=[asked.column]).column(0)).as_py()
        for path in paths
    ]
    pipeline, warehouse = active.session.pipeline, active.session.warehouse
    table = pipeline.table(model)
    if pipeline.model(model).load is not LoadMode.REPLACE and table not in warehouse.missing((table,)):
        values.append(warehouse.newest(table, asked.column))
    instants = (gate.instant(value) for value in values)
    return max((one for one in instants if one is not None), default=None)


def _closed(rules: Sequence[Rule]) -> GateClosed | None:
    failed = [rule for rule in rules if rule.passed is False]
    return GateClosed(f"{gate.failures(failed)}: nothing is sent on") if failed else None


def _planned_batch(session: Session, unit: Unit) -> dict[str, Any]:
    """The files of a batch that would be taken, and those that would not."""
    with session.state.read() as conn:
        known = ledger.versions(conn, session.pipeline.name, [unit.batch])
    wanted = {file.path for pairs in unit.wanted.values() for file, _ in pairs}
    standing = {file.id for model in unit.models for file in ledger.candidates(known, model) if file.raw}
    files = []
    for file in sorted(ledger.latest(known).values(), key=lambda one: one.path):
        why = "new" if file.version == 1 else "changed"
        if file.path not in wanted:
            why = file.reason or f"{file.status.value} already"
        if file.model is not None and file.model not in unit.models:
            why = "its model is done"
        action = "take" if file.path in wanted else "quarantine" if file.status is FileStatus.QUARANTINED else "skip"
        if action == "skip" and file.id in standing:
            action, why = "reuse", "in the lake already"
        shown = {"batch": unit.batch, "model": file.model, "path": file.path, "size": file.size}
        files.append({**shown, "action": action, "why": why})
    return {"batch": unit.batch, "reason": unit.reason, "models": list(unit.models), "files": files}


def _ddl(session: Session, model: str, found: Found) -> list[dict[str, str]]:
    """The statements by which the target would come to hold what the contract, or waiting files, say; or why not."""
    contract = session.pipeline.columns(model)
    names = {column.name.casefold() for column in contract}
    with session.state.read() as conn:
        extra = list(drifts.added(conn, session.pipeline.name, model))
    if session.pipeline.model(model).drift == "evolve":
        for unit in found.units:
            for _, item in unit.wanted.get(model, ()):
                known = {name.casefold() for name in extra}
                extra += [name for name in _header(session, model, item).extra if name.casefold() not in known]
    columns = (*contract, *(TargetColumn(name, "string") for name in extra if name.casefold() not in names))
    try:
        planned = session.warehouse.planned(session.pipeline.table(model), columns, session.pipeline.lineage())
    except WarehouseError as error:
        return [{"trouble": error.message}]
    return [{"statement": one} for one in planned]


def _header(session: Session, model: str, item: Item) -> Compared:
    """The header of a waiting file beside its contract; one that cannot be read adds nothing."""
    settings = session.pipeline.model(model)
    limit = session.pipeline.settings.validation.max_record_lines
    try:
        with session.source.open(item) as stream:
            names = names_in(settings, item.path, stream, max_record_lines=limit)
        return compare_header(compile_contract(model, settings), settings, item.path, "", names)
    except ContractError:
        return Compared((), (), ())
