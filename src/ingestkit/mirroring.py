"""What mirrors show of a pipeline, and the one thing they and the lake decide: that an empty state is not a new one."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ingestkit import steps
from ingestkit.discover import checkpoint
from ingestkit.errors import IngestkitError, StateError
from ingestkit.model import sha256_of
from ingestkit.ports import RunEvent
from ingestkit.session import Session
from ingestkit.states import completions, run_events, runs
from ingestkit.states.mirrors import bring_up


def shown(session: Session) -> Mapping[str, Any]:
    """The pipeline as its state has it now: where it stands, its models, its newest run."""
    name = session.pipeline.name
    with session.state.read() as conn:
        row = runs.pipeline_row(conn, name)
        done = completions.done(conn, name)
        newest = completions.newest(done, session.pipeline.order)
        held = completions.each(conn, name, newest)
        last = runs.latest_run(conn, name)
    models = {
        model: {
            "batch": one.batch,
            "status": one.status.value,
            "generation": one.generation,
            "at": at.isoformat(),
        }
        for model, (one, at) in held.items()
    }
    return {
        "pipeline": name,
        "state_id": row["state_id"] if row else None,
        "checkpoint": checkpoint(session, done, row["floors"] if row else {}),
        "models": models,
        "run": {"run_id": last.run_id, "status": last.status.value, "batch": last.batch} if last else None,
    }


def show(session: Session) -> None:
    """Bring the mirrors up to the state. They are level-triggered: one that fails warns, the next run writes it."""
    now = shown(session)
    try:
        bring_up(session.mirror, session.pipeline.name, now)
    except IngestkitError as error:
        session.progress.warned(f"the mirror could not be written: {error.message}")
    try:
        _show_runs(session)
    except IngestkitError as error:
        told = f"the mirror of runs could not be written, and the next run tries again: {error.message}"
        session.progress.warned(told, hint=error.hint)


def _show_runs(session: Session) -> None:
    """Add what the warehouse does not show of the runs. It is left asleep where it was shown all that there is."""
    if session.open_run_mirror is None:
        return
    name = session.pipeline.name
    with session.state.read() as conn:
        standing = run_events.standing(conn, name)
        mark = sha256_of(sorted(standing))
        if mark == run_events.shown(conn, name):
            return

    def told(missing: Collection[str]) -> Sequence[RunEvent]:
        with session.state.read() as conn:
            return run_events.told(conn, [standing[event] for event in missing])

    session.open_run_mirror().add_missing(name, standing, told)
    steps.reached("mirror.runs_added")
    with session.state.write() as conn:
        run_events.note_shown(conn, name, mark)


def refuse_empty_state(session: Session) -> None:
    """A state that knows nothing of a pipeline whose mirror or lake does was lost, and must not begin from nothing.

    The mirror lies beside the state and may be lost with it. The lake is asked only where neither knows anything.
    """
    name = session.pipeline.name
    if _knows(session):
        return
    mirrored = session.mirror.read(name)
    if mirrored is not None and mirrored.get("run") is not None:
        seen = f"its mirror shows run {mirrored['run'].get('run_id')}"
    elif (sidecar := session.lake.first_sidecar(name)) is not None:
        seen = f"the lake holds what runs of it have left, such as {sidecar}"
    else:
        return
    if _knows(session):
        # The first run of another model has begun meanwhile: its row came before what was seen of it.
        return
    raise StateError(
        f"the state knows nothing of {name}, but {seen}: the state was deleted, or another one is meant",
        hint=f"ingestkit state adopt {name} --reason '...' rebuilds it; config show --origin names the one meant",
    )


def _knows(session: Session) -> bool:
    name = session.pipeline.name
    with session.state.read() as conn:
        return runs.latest_run(conn, name) is not None or bool(completions.done(conn, name))
