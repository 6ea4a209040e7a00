"""What a backfill would do: which batches and models with which files, and what it would leave to newer batches."""

from collections.abc import Iterator, Mapping
from typing import Any

from ingestkit.active import FROM_LAKE
from ingestkit.backfill_range import Progress, choose, invocation_of, models_left
from ingestkit.backfilling import (
    batch_of,
    behind,
    done_models,
    kind_of,
    known_then,
    redo_unit,
    refuse_what_is_not_kept,
    superseded,
)
from ingestkit.check import tables_gone
from ingestkit.errors import SourceError
from ingestkit.model import FileVersion
from ingestkit.planning import standing
from ingestkit.rebuilding import marked, wanted_of
from ingestkit.rehearsing import rehearsal
from ingestkit.session import Session
from ingestkit.sighting import Unit
from ingestkit.states import completions, ledger
from ingestkit.states.lease import Lease
from ingestkit.working import RunOptions

AGAIN = "do again"


def plan_backfill(session: Session, options: RunOptions) -> dict[str, Any]:
    """What a backfill would do again, told from copies."""
    refuse_what_is_not_kept(session, options)
    in_the_way = standing(session)
    progress = Progress()
    with rehearsal(session, options) as lease:
        if options.since is not None or options.until is not None:
            progress.invocation = invocation_of(session, options)
            choose(session, lease, options, progress)
            chosen = {batch: models_left(session, lease, progress.invocation, batch) for batch in progress.left or ()}
        elif options.batch is not None or options.run_id is not None:
            batch = batch_of(session, options)
            chosen = {batch: done_models(session, lease, batch, options)}
        else:
            chosen = _lacking(session, lease)
        files: list[dict[str, Any]] = []
        rows = [
            row for batch, models in chosen.items() for row in _redone(session, lease, batch, models, options, files)
        ]
    return {
        "pipeline": session.pipeline.name,
        "waiting": len({row["batch"] for row in rows if row["action"] == AGAIN}),
        **in_the_way,
        "batches": rows,
        "files": files,
        "undone": list(progress.undone),
    }


def _lacking(session: Session, lease: Lease) -> dict[str, tuple[str, ...]]:
    """What a target that is built again would be given, oldest first."""
    receipts = session.warehouse.receipts(session.pipeline.name)
    gone = {*tables_gone(session, lease.models), *marked(session, lease.models)}
    with session.state.read() as conn:
        pins = completions.pins(conn, session.pipeline.name, session.pipeline.order)
    pinned = {(one.batch, one.model) for one in pins}
    found: dict[str, list[str]] = {}
    for model, batches in wanted_of(session, lease.models, receipts, gone, pinned).lacks.items():
        for batch in batches:
            found.setdefault(batch, []).append(model)
    return {batch: tuple(sorted(found[batch])) for batch in sorted(found, key=session.pipeline.order)}


def _redone(
    session: Session,
    lease: Lease,
    batch: str,
    models: tuple[str, ...],
    options: RunOptions,
    files: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """One row per model of the batch; the files of those that would be done are added to `files`."""
    said = superseded(session, batch, models, options)
    known = known_then(session, batch, models, options)
    newer = behind(session, batch, [model for model in known if model not in said])
    again = tuple(model for model in known if model not in said and model not in newer)
    trouble = _files(session, lease, batch, again, options, files) if again else None
    with session.state.read() as conn:
        files_known = ledger.versions(conn, session.pipeline.name, [batch])
        origin = "from the lake" if kind_of(options) in FROM_LAKE else "from the source"
    for model in models:
        mode = session.pipeline.mode(model, ledger.candidates(files_known, model))
        row = {"batch": batch, "model": model, "mode": mode.value}
        if model in said:
            yield {**row, "action": "superseded", "why": f"{said[model]} stands"}
        elif model not in known:
            yield {**row, "action": "leave out", "why": "no file of it was known then"}
        elif model in newer:
            why = f"the rows of {newer[model]} are not kept (keep: none)"
            if session.pipeline.many:
                why = f"{newer[model]} has changed the tables since"
            yield {**row, "action": "fail", "why": why}
        elif trouble is not None:
            yield {**row, "action": "fail", "why": trouble}
        else:
            yield {**row, "action": AGAIN, "why": origin}


def _files(
    session: Session,
    lease: Lease,
    batch: str,
    models: tuple[str, ...],
    options: RunOptions,
    files: list[dict[str, Any]],
) -> str | None:
    """Note which version of each file would be published; or why the batch cannot be done."""
    kind = kind_of(options)
    wanted: Mapping[str, FileVersion] = {}
    try:
        unit = redo_unit(session, lease, batch, models, kind)
        wanted = {file.path: file for pairs in unit.wanted.values() for file, _ in pairs}
    except SourceError as error:
        return error.message
    with session.state.read() as conn:
        there = ledger.versions(conn, session.pipeline.name, [batch])
        if options.as_of is not None:
            there = ledger.versions_at(conn, session.pipeline.name, batch, options.as_of)
    trouble = None
    at_the_source = _sizes(session, unit)
    for model in models:
        reused = {file.path: file for file in ledger.candidates(there, model)}
        fetched = {path: file for path, file in wanted.items() if file.model == model}
        for path, file in sorted((reused | fetched).items()):
            action = "fetch" if path in fetched or at_the_source.get(path) == file.size else "reuse"
            if action == "reuse" and not (file.raw and session.lake.holds(file.raw, file.size)):
                action = "gone"
                trouble = f"the raw object of {path} (version {file.version}) is no longer in the lake"
                if not session.pipeline.keeps:
                    trouble = f"{path} is gone from the source, or has changed, and is not kept (keep: none)"
            shown = {"batch": batch, "model": model, "path": path, "version": file.version, "size": file.size}
            files.append({**shown, "action": action})
    return trouble


def _sizes(session: Session, unit: Unit) -> dict[str, int]:
    """What of a batch that is not kept could be fetched again."""
    if session.pipeline.keeps:
        return {}
    return {item.path: item.size for item in session.source.items(unit.batch, unit.window)}
