"""What a run would do: batches and files and why, statements, the rules' history, and what stands in its way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ingestkit.active import usual_rows
from ingestkit.check import (
    lacking,
    newest_done,
    refuse_disagreeing,
    refuse_missing_file,
    refuse_of_another_state,
    tables_gone,
    warn_of_tables,
)
from ingestkit.contract import compile_contract
from ingestkit.discover import Found, discover
from ingestkit.errors import ConfigError, ContractError, IngestkitError, SourceError, TargetError, WarehouseError
from ingestkit.formats import names_in
from ingestkit.header import Compared, compare_header
from ingestkit.mirroring import refuse_empty_state
from ingestkit.model import FileStatus, FileVersion, Item, Receipt, Stage
from ingestkit.ports import TargetColumn
from ingestkit.rebuilding import marked
from ingestkit.session import Session
from ingestkit.sighting import Sketch, Unit, known_files
from ingestkit.stages.standing import newer_content
from ingestkit.stages.tables import tables_of
from ingestkit.states import completions, drifts, ledger, runs, stage_rows
from ingestkit.states.lease import holders
from ingestkit.working import RunOptions

LEAST = ("empty", "min_rows")
"""Rules whose limit is the least that passes."""
HISTORY = 5
"""So many of a rule's last figures are shown."""


def plan(session: Session, options: RunOptions) -> dict[str, Any]:
    """What `run` would take, by which limits it would be judged, and what stands in its way."""
    in_the_way = standing(session)
    sketch = Sketch(session.pipeline.check_models(options.models))
    try:
        found = discover(session, sketch, only=options.batch, limit=options.limit)
    except SourceError as error:
        found = Found(failure=error)
    receipts = _receipts(session) if found.units else ()
    mixed: ContractError | None = None
    over: dict[str, dict[str, str]] = {}
    for unit in found.units:
        try:
            over[unit.batch] = _superseded(session, unit, receipts)
        except ContractError as error:
            # What lies before it would be done all the same.
            over[unit.batch], mixed = {}, mixed or error
    batches = [_planned_batch(session, unit, sketch, over[unit.batch]) for unit in found.units]
    ddl = {model: _ddl(session, model, found) for model in sketch.models}
    gates = _gates(session, sketch.models, found.units[0].batch if found.units else None)
    with suppress(WarehouseError):
        # Why it does not answer is told in place of its statements.
        warn_of_tables(session)
    begins = bool(found.units or found.missed or in_the_way["open"])
    refused = None if in_the_way["paused"] else _refused(session, sketch.models, begins=begins)
    failure = refused or mixed or found.failure or _impossible(session, ddl, found)
    building = _built_again(session, sketch.models)
    waits = {unit.batch for unit in found.units} | {one["batch"] for one in (*in_the_way["open"], *building)}
    return {
        "pipeline": session.pipeline.name,
        "waiting": len(waits),
        "checkpoint": found.checkpoint,
        **in_the_way,
        "rebuild": building,
        "batches": [{name: one[name] for name in ("batch", "window", "reason", "models")} for one in batches],
        "files": [file for one in batches for file in one["files"]],
        "superseded": [
            {"batch": batch, "model": model, "by": by} for batch, models in over.items() for model, by in models.items()
        ],
        "not_yet": [{"batch": batch, "why": why} for batch, why in found.waiting.items()],
        "holes": [{"before": batch, **asdict(hole)} for batch, hole in found.holes.items()],
        "late": list(found.late),
        "ahead": list(found.ahead),
        "missed": [] if found.missed is None else [asdict(found.missed)],
        "unmapped": list(found.unmapped),
        "strays": list(found.strays),
        "ddl": [{"model": model, **one} for model, some in ddl.items() for one in some],
        "gates": gates,
        "failure": None
        if failure is None
        else {"message": failure.message, "hint": failure.hint, "exit_code": failure.exit_code},
    }


def _impossible(
    session: Session, ddl: Mapping[str, Sequence[Mapping[str, str]]], found: Found
) -> WarehouseError | None:
    """What no statement brings about, of a model that there is work for: a run would end there."""
    at_work = {model for unit in found.units for model in unit.models}
    wrong = [one["trouble"] for model, some in ddl.items() for one in some if model in at_work and "trouble" in one]
    if not wrong:
        return None
    return WarehouseError(wrong[0], hint=f"ingestkit check {session.pipeline.name}")


def _built_again(session: Session, models: Sequence[str]) -> list[dict[str, str]]:
    """What a run would publish again, since the target was lost or put back and its models are marked for it."""
    building = marked(session, models)
    if not building:
        return []
    try:
        receipts, gone = session.warehouse.receipts(session.pipeline.name), tables_gone(session, building)
    except WarehouseError:
        # Its file may not be there, and then nothing of it is.
        receipts, gone = (), frozenset(building)
    found = lacking(session, building, receipts, gone)
    return [{"batch": batch, "model": model} for model, batches in sorted(found.items()) for batch in batches]


def _refused(session: Session, models: Sequence[str], *, begins: bool) -> IngestkitError | None:
    """Why a run would not begin, though there may be work for it; where it `begins` it asks more of the target."""
    building = marked(session, models)
    whole = [model for model in models if model not in building]
    try:
        refuse_empty_state(session)
        if building:
            refuse_of_another_state(session)
        if begins or building:
            # That it answers; what may be written there is tried by `check` and by a run.
            session.lake.first_sidecar(session.pipeline.name)
            refuse_disagreeing(session, whole)
        else:
            refuse_missing_file(session, newest_done(session, whole))
        if begins and session.transform is not None:
            session.transform.check()
    except (TargetError, ConfigError) as error:
        return error
    return None


def _receipts(session: Session) -> Sequence[Receipt]:
    try:
        return session.warehouse.receipts(session.pipeline.name)
    except WarehouseError:
        # Why it does not answer is told in place of its statements.
        return ()


def _superseded(session: Session, unit: Unit, receipts: Sequence[Receipt]) -> dict[str, str]:
    """The models of a batch over which newer content stands or waits: their files are landed, and not loaded."""
    found = {}
    with session.state.read() as conn:
        known = ledger.versions(conn, session.pipeline.name, [unit.batch])
    for model in unit.models:
        # What is published and only to be judged is in the target already.
        if unit.reason != "not judged" or unit.wanted.get(model):
            wanted = (file for file, _ in unit.wanted.get(model, ()))
            files = ledger.latest([*ledger.candidates(known, model), *wanted]).values()
            mode = session.pipeline.mode(model, files)
            found[model] = newer_content(session.pipeline, unit.batch, model, mode, receipts)
    return {**{model: by for model, by in found.items() if by is not None}, **unit.newer}


def standing(session: Session) -> dict[str, Any]:
    """Where the pipeline stands, whatever is waiting: pauses, pins, open runs, and who works on it now."""
    name = session.pipeline.name
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, name) or {}
        pins = completions.pins(conn, name, session.pipeline.order)
        waiting = runs.open_runs(conn, name)
        leases = holders(conn, name, session.clock.now())
    paused = {"since": row.get("paused_at"), "by": row.get("paused_by"), "reason": row.get("paused_reason")}
    held = {"since": row.get("held_at"), "reason": row.get("held_reason")}
    return {
        "paused": paused if paused["since"] else None,
        "held": held if held["since"] else None,
        "pins": [asdict(pin) for pin in pins],
        "open": [
            {
                "run_id": run.run_id,
                "batch": run.batch,
                "kind": run.kind,
                "models": sorted(models),
                "last_command": run.last_command,
                "touched_at": run.touched_at,
            }
            for run, models in waiting
        ],
        "leases": leases,
    }


def _planned_batch(session: Session, unit: Unit, sketch: Sketch, over: Mapping[str, str]) -> dict[str, Any]:
    """The files of a batch that would be taken, and those that would not."""
    known = known_files(session, [unit.batch], sketch)[unit.batch]
    wanted = {file.path for pairs in unit.wanted.values() for file, _ in pairs}
    in_lake = {file.id for model in unit.models for file in ledger.candidates(known, model) if file.raw}
    before = {(file.path, file.version + 1): file for file in known}
    files = []
    for file in sorted(ledger.latest(known).values(), key=lambda one: one.path):
        if file.model is not None and file.model not in unit.models:
            action, why = "skip", "its model is done"
        elif file.path in wanted:
            action, why = "take", _why(unit, before.get((file.path, file.version)))
            if file.model is not None and file.model in over:
                why = f"{why}; superseded by {over[file.model]}"
        elif file.id in in_lake:
            held = file.raw is not None and session.lake.holds(file.raw, file.size)
            gone = "kept no longer (keep: none)" if not session.pipeline.keeps else "the lake has it no more"
            action, why = ("reuse", "in the lake already") if held else ("take", gone)
        elif file.status is FileStatus.FORGOTTEN:
            action, why = "leave out", "forgotten, and gone from the source"
        else:
            action = "quarantine" if file.status is FileStatus.QUARANTINED else "skip"
            why = file.reason or f"{file.status.value} already"
        shown = {"batch": unit.batch, "model": file.model, "path": file.path, "size": file.size}
        files.append({**shown, "action": action, "why": why})
    window = unit.window.to_json() if unit.window is not None else None
    told = {"batch": unit.batch, "window": window, "reason": unit.reason, "models": list(unit.models)}
    return {**told, "files": files}


def _why(unit: Unit, before: FileVersion | None) -> str:
    if before is None:
        return "new" if unit.reason == "new" else "late: its batch is done"
    return "forgotten, and here again" if before.status is FileStatus.FORGOTTEN else "changed"


def _gates(session: Session, models: Sequence[str], before: str | None) -> list[dict[str, Any]]:
    """Each rule with its limit of today and its last figures, newest first."""
    usual = usual_rows(session, before)
    with session.state.read() as conn:
        judged = stage_rows.judged(conn, session.pipeline.name)
    past: dict[tuple[str, str], list[dict[str, Any]]] = {}
    limits: dict[tuple[str, str], float | None] = {
        (model, name): limit for model in models for name, limit in _limits(session, model)
    }
    for batch, rule in judged:
        if set(rule.models) & set(models):
            figures = past.setdefault((rule.model, rule.name), [])
            limits.setdefault((rule.model, rule.name), rule.limit)
            if len(figures) < HISTORY:
                figures.append({"batch": batch, "figure": rule.figure, "limit": rule.limit, "passed": rule.passed})
    return [
        {
            "model": model,
            "rule": name,
            "limit": limits[model, name],
            "least": name in LEAST,
            "last": past[model, name][0]["figure"] if (model, name) in past else None,
            "usual_rows": usual.get(model) if name == "row_delta" else None,
            "history": past.get((model, name), []),
        }
        for model, name in sorted(limits)
    ]


def _limits(session: Session, model: str) -> Iterator[tuple[str, float]]:
    """What the pipeline file says today of rules whose limits it may set."""
    limits = session.pipeline.limits(model)
    oldest = None if limits.freshness is None else limits.freshness.max_age.total_seconds() / 3600
    said: Mapping[str, float | None] = {
        "reject_rate": limits.max_reject_pct,
        "file_reject_rate": session.pipeline.settings.validation.max_file_reject_pct,
        "row_delta": limits.row_delta_pct,
        "min_rows": limits.min_rows,
        "loss": limits.max_loss_pct,
        "freshness": oldest,
        "control_total": None if session.pipeline.settings.source.totals is None else 0,
    }
    return ((name, limit) for name, limit in said.items() if limit is not None)


def _ddl(session: Session, model: str, found: Found) -> list[dict[str, str]]:
    """The statements by which the target would come to hold what the contract, or waiting files, say; or why not."""
    if session.pipeline.many:
        return _ddl_of_many(session, model, found)
    contract = session.pipeline.columns(model)
    names = {column.name.casefold() for column in contract}
    with session.state.read() as conn:
        extra = list(drifts.added(conn, session.pipeline.name).get(model, ()))
    if session.pipeline.model(model).drift == "evolve":
        for unit in found.units:
            for _, item in unit.wanted.get(model, ()):
                known = {name.casefold() for name in extra}
                extra += [name for name in _header(session, model, item).extra if name.casefold() not in known]
    columns = (*contract, *(TargetColumn(name, "string") for name in extra if name.casefold() not in names))
    wanted = [(session.pipeline.table(model), columns, session.pipeline.lineage())]
    if (rejects := session.pipeline.rejects(model)) is not None:
        wanted.append((rejects.table, rejects.columns, rejects.lineage))
    return _planned(session, wanted)


def _ddl_of_many(session: Session, model: str, found: Found) -> list[dict[str, str]]:
    """The same of archives that have been validated; of others nobody knows what tables they hold."""
    name, said = session.pipeline.name, session.pipeline.settings.tables
    with session.state.read() as conn:
        left = [stage_rows.left_of_batch(conn, name, one.batch, Stage.VALIDATE, model) for one in found.units]
        tables = [table for some in left if (one := next(some, None)) for table in tables_of(one.work.details)]
    lineage = session.pipeline.lineage()
    told = _planned(session, [(one.name, one.targets, lineage) for one in tables if not one.gone])
    if said is not None and said.removed == "drop":
        told += [{"statement": f"DROP TABLE {one.name}"} for one in tables if one.gone]
        told += [{"statement": f"ALTER TABLE {one.name} DROP COLUMN {name}"} for one in tables for name in one.dropped]
    return told


def _planned(
    session: Session, wanted: Iterable[tuple[str, tuple[TargetColumn, ...], tuple[str, ...]]]
) -> list[dict[str, str]]:
    try:
        planned = [one for each in wanted for one in session.warehouse.planned(*each)]
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
