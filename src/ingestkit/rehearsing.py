"""A run tried on copies: what of the waiting files is valid, and how it would be judged."""

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
from ingestkit.discover import discover
from ingestkit.errors import ContractError, GateClosed, IngestkitError
from ingestkit.mirroring import refuse_empty_state
from ingestkit.model import ArtifactKind, Counts, LoadMode, Rule, Stage
from ingestkit.outcome import ModelResult, Outcome
from ingestkit.phases import do_stage
from ingestkit.reporting import many, results_of
from ingestkit.runner import holding
from ingestkit.session import Session
from ingestkit.settings import Freshness
from ingestkit.stages import gate
from ingestkit.states import stage_rows
from ingestkit.states.lease import Lease
from ingestkit.states.tables import lease as lease_table
from ingestkit.working import RunOptions, active_run

JUDGED = {True: "passed", False: "failed", None: "not judged"}


def rehearse(session: Session, options: RunOptions, rows: int | None) -> Outcome:
    """Extract, validate and judge what waits, as `run` would, in folders that nobody else looks at."""
    results: list[ModelResult] = []
    rules: list[Any] = []
    tried: dict[str, dict[str, int]] = {}
    failure: IngestkitError | None = None
    with rehearsal(session, options) as lease:
        found = discover(session, lease, only=options.batch, limit=options.limit)
        for unit in found.units:
            run = attempts.open_new(session, lease, unit, kind="run", command="run")
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


def rehearsal(session: Session, options: RunOptions) -> AbstractContextManager[Lease]:
    """Hold the models in the copy of the state, where the leases of others were copied with it."""
    refuse_empty_state(session)
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
    if active.session.transform is not None:
        found.append(Rule("dbt", Stage.DBT, ", ".join(active.models), None, 0, None))
    return found


def _newest(active: Active, model: str, paths: Sequence[Path], asked: Freshness) -> Any:
    """The newest value there would be in the target."""
    values = [
        pyarrow.compute.max(pyarrow.parquet.read_table(path, columns=[asked.column]).column(0)).as_py()
        for path in paths
    ]
    pipeline, warehouse = active.session.pipeline, active.session.warehouse
    table = pipeline.table(model)
    beside = pipeline.model(model).load is not LoadMode.REPLACE or pipeline.model(model).takes_changes
    if beside and table not in warehouse.missing((table,)):
        values.append(warehouse.newest(table, asked.column))
    instants = (gate.instant(value) for value in values)
    return max((one for one in instants if one is not None), default=None)


def _closed(rules: Sequence[Rule]) -> GateClosed | None:
    failed = [rule for rule in rules if rule.passed is False]
    return GateClosed(f"{gate.failures(failed)}: nothing is sent on") if failed else None
