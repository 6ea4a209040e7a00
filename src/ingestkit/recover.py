"""What every command does first: write into the state what a dead process had finished, and tidy its debris."""

import json
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ingestkit import metering, steps
from ingestkit.discover import floors_of
from ingestkit.errors import LakeError, StateError
from ingestkit.lake import UNMAPPED, HashingWriter, Place, sidecar_name
from ingestkit.model import Sidecar
from ingestkit.session import Session
from ingestkit.states import completions, decisions, ledger, runs, sidecars, stage_rows
from ingestkit.states.lease import Lease
from ingestkit.states.owner import Owner
from ingestkit.states.queue import PendingRecord
from ingestkit.states.stage_totals import Growth

AT_ONCE = 500
REFUSALS = 20
"""So many removals refused in a row are enough for one time."""


def recover(session: Session, lease: Lease) -> None:
    """Replay the queue, adopt sidecars whose rows are missing, mark dead stages, remove in-flight folders."""
    _give_floors(session, lease)
    replay(session, lease)
    steps.reached("recover.replayed")
    with session.state.read() as conn:
        waiting = runs.open_runs(conn, session.pipeline.name)
        noted = ledger.being_removed(conn, session.pipeline.name, (*lease.models, UNMAPPED))
    for run, models in waiting:
        held = models & set(lease.models)
        found = [one for one in session.lake.sidecars(run.pipeline, run.run_id) if _is_ours(one, models, held)]
        now = session.clock.now()
        counted: list[Growth] = []
        with lease.transaction() as conn:
            for sidecar in found:
                if sidecars.apply(conn, sidecar, sidecar_name(sidecar), now):
                    counted += metering.recorded(session, conn, sidecar)
            stage_rows.interrupt(conn, run.run_id, held, lease.token, now)
        metering.note(session, counted)
    steps.reached("recover.adopted")
    _remove_what_was_let_go(session, lease, noted)
    session.lake.note_layout(Place(session.pipeline.name, lease.models[0], "layouts", lease.token))
    copy_decisions(session, lease)
    remove_scratch(session.scratch, lease.owner)
    for model in lease.models:
        session.lake.remove_inflight(session.pipeline.name, model, lease.token)


def replay(session: Session, lease: Lease) -> int:
    """Write what this pipeline's part of the pending queue holds for the models of the lease; how much there was."""

    def write(record: PendingRecord) -> bool:
        sidecar = Sidecar.from_json(record.row)
        counted: list[Growth] = []
        with lease.transaction() as conn:
            if runs.run(conn, sidecar.run_id) is None:
                raise StateError(
                    f"the pending queue speaks of run {sidecar.run_id}, which the state does not know",
                    hint=f"ingestkit state adopt {session.pipeline.name} --reason '...'",
                )
            if sidecars.apply(conn, sidecar, sidecar_name(sidecar), session.clock.now()):
                counted = metering.recorded(session, conn, sidecar)
        metering.note(session, counted)
        return True

    written = session.queue.replay(session.pipeline.name, [*lease.models, "*"], write)
    if damaged := session.queue.damaged():
        session.progress.warned(f"{damaged} line(s) of the pending queue could not be read; see {session.queue.bad}")
    return written


def _remove_what_was_let_go(session: Session, lease: Lease, names: Sequence[str]) -> None:
    """End what a clean had noted: who noted it may still be about to remove it, so that nothing may count on it."""
    if not names:
        return
    try:
        remove_noted(session, lease, names)
    except LakeError as error:
        session.progress.warned(f"what is no longer kept could not be removed from the lake: {error.message}")


def remove_noted(session: Session, lease: Lease, names: Sequence[str]) -> None:
    """Remove what was noted; what is refused keeps nothing else for ever, and the first refusal is raised behind all.

    Not all is tried where so many are refused in a row: a lake that refuses everything is asked little. The order is of
    chance, since in any other the same ones might be refused first each time.
    """
    mixed = random.sample(names, len(names))
    refused: list[LakeError] = []
    in_a_row = 0
    for start in range(0, max(1, len(mixed)), AT_ONCE):
        gone: list[str] = []
        try:
            for name in mixed[start : start + AT_ONCE]:
                session.stop.check()
                try:
                    session.lake.store.remove(name)
                except LakeError as error:
                    refused.append(error)
                    in_a_row += 1
                    # One that may be tried again ends it at once, and is never hidden behind one that may not.
                    if error.transient or in_a_row > REFUSALS:
                        raise
                else:
                    gone.append(name)
                    in_a_row = 0
            steps.reached("clean.removed")
        finally:
            if gone:
                with lease.transaction() as conn:
                    ledger.mark_removed(conn, gone, session.clock.now())
    if refused:
        raise refused[0]


def _give_floors(session: Session, lease: Lease) -> None:
    """A model first seen now begins where the pipeline stands: what was done before it came is not its work."""
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, session.pipeline.name)
        known: Mapping[str, str | None] = row["floors"] if row else {}
        missing = [model for model in session.pipeline.models if model not in known]
        if not missing:
            return
        floors = floors_of(session, known, completions.done(conn, session.pipeline.name))
    floor = floors[missing[0]]
    with lease.transaction() as conn:
        runs.update_pipeline(conn, session.pipeline.name, floors=floors)
        if floor is not None:
            decisions.record(
                conn,
                session.pipeline.name,
                "set",
                {"batch": floor, "models": missing},
                reason="first seen after this batch was done",
                by="ingestkit",
                at=session.clock.now(),
            )


def remove_scratch(mine: Path, owner: Owner) -> None:
    """Remove what processes of this machine that are gone left in scratch."""
    try:
        folders = list(mine.parent.iterdir()) if mine.parent.is_dir() else []
    except OSError as error:
        raise StateError(
            f"the scratch folder {mine.parent} cannot be read: {error.strerror}", hint=f"ls -ld {mine.parent}"
        ) from error
    for folder in folders:
        if owner.ended(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def copy_decisions(session: Session, lease: Lease) -> None:
    """Bring the lake's copies of decisions up to the state's chain; a lake that knows others is StateError."""
    # Listed first: what another command decides meanwhile is in the state before it is in the lake.
    there = {stored.name for stored in session.lake.store.list(f"_decisions/{session.pipeline.name}/")}
    with session.state.read() as conn:
        chain = decisions.chain(conn, session.pipeline.name)
    if unknown := sorted(there - {one.lake_name() for one in chain}):
        raise StateError(
            f"the lake holds a decision about {session.pipeline.name} that the state does not know ({unknown[0]}): the "
            "state was put back to an older copy, or another one is meant",
            hint=f"ingestkit state adopt {session.pipeline.name} --reason '...'",
        )
    place = Place(session.pipeline.name, lease.models[0], "decisions", lease.token)
    for one in chain:
        if one.lake_name() not in there:
            session.lake.publish(place, one.lake_name(), partial(_fill, json.dumps(one.to_json(), indent=1).encode()))


def _fill(content: bytes, writer: HashingWriter) -> None:
    writer.write(content)


def _is_ours(sidecar: Sidecar, models: Iterable[str], held: frozenset[str]) -> bool:
    """A sidecar over all models of a run is adopted only by who holds them all."""
    return set(models) <= held if sidecar.model == "*" else sidecar.model in held
