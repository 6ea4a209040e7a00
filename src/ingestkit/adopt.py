"""Taking over a target with a state that did not write it: another owner named, the state rebuilt from the lake."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

import sqlalchemy as sql

from ingestkit import decide, steps
from ingestkit.attempts import REDONE
from ingestkit.check import lacking, tables_gone
from ingestkit.errors import UsageError
from ingestkit.lake import BATCH_KINDS, is_passing, sidecar_name, token_of
from ingestkit.mirroring import show
from ingestkit.model import Completion, Fence, Intent, LoadMode, Receipt, RunStatus, Sidecar, Stage, Window, instant
from ingestkit.outcome import Outcome
from ingestkit.phases import WORK
from ingestkit.recover import copy_decisions, replay
from ingestkit.reporting import many
from ingestkit.runner import holding
from ingestkit.session import Session
from ingestkit.states import completions, decisions, ledger, runs, stage_rows
from ingestkit.states import sidecars as sidecar_rows
from ingestkit.states.decisions import Decision
from ingestkit.states.lease import Lease, raise_counter
from ingestkit.states.runs import Run
from ingestkit.windowing import begin_again


def adopt(session: Session, reason: str, by: str, confirm: Callable[[str], bool]) -> Outcome:
    """Make this state the one that may write the target, and bring it to what lake and receipts say."""
    name = session.pipeline.name
    fences = session.warehouse.fences(name)
    sidecars = list(session.lake.sidecars(name))
    raise_counter(session.state, name, _highest_token(session, fences.values(), sidecars))
    with holding(session, session.pipeline.models, "state adopt", "fail") as lease:
        others = sorted({fence.state_id for fence in fences.values()} - {lease.state_id})
        owner = f"now owned by state {', '.join(others)}" if others else "owned by this state or by nobody"
        if not confirm(
            f"The target of {name} is {owner}. Take it over? Any process that still works with the other state will "
            "be fenced off."
        ):
            raise UsageError("not adopted; nothing was changed")
        owned = _own(session, lease)
        replay(session, owned)
        rebuilt = _rebuild(session, owned, sidecars)
        with owned.transaction() as conn:
            subject = {"from": others, "state_id": owned.state_id, "token": owned.token}
            decisions.record(conn, name, "adopt", subject, reason=reason, by=by, at=session.clock.now())
        begin_again(session, owned)
        missing = (*_note_gone(session, lease), *_compared(session, owned))
        copy_decisions(session, owned)
        show(session)
    read = many(rebuilt, "sidecar", "sidecars")
    told = f"{name} is adopted: " + (f"{read} read back from the lake" if rebuilt else "it knew all that the lake says")
    if missing:
        told += f"; {len(missing)} thing(s) do not fit, see the warnings"
    return Outcome("state adopt", name, "done", told, warnings=missing)


def _highest_token(session: Session, fences: Iterable[Fence], sidecars: list[Sidecar]) -> int:
    name = session.pipeline.name
    tokens = [fence.token for fence in fences]
    tokens += [one.token for one in sidecars]
    tokens += [token_of(one) for one in session.lake.store.inflight(f"_inflight/{name}/")]
    return max(tokens, default=0)


def _own(session: Session, lease: Lease) -> Lease:
    """Give the state a new id and write it, with our token, into the fence: from now on nobody else can publish."""
    state_id = uuid4().hex
    with lease.transaction() as conn:
        # What the target lacks is known only when the state is rebuilt; until that is done, all may.
        runs.update_pipeline(conn, session.pipeline.name, state_id=state_id, rebuild=list(session.pipeline.models))
    steps.reached("adopt.owned")
    session.warehouse.check()
    session.warehouse.fence(
        tuple(
            Fence(session.pipeline.name, model, state_id, lease.token, session.pipeline.table(model))
            for model in lease.models
        ),
        adopt=True,
    )
    steps.reached("adopt.fenced")
    return replace(lease, state_id=state_id)


def _rebuild(session: Session, lease: Lease, sidecars: list[Sidecar]) -> int:
    """Write back what sidecars and decisions say, in the order in which they came about, in one transaction."""
    name = session.pipeline.name
    taken = list(_decisions(session))
    events: list[tuple[datetime, Sidecar | Decision]] = [(one.at, one) for one in sidecars]
    events += [(one.at, one) for one in taken]
    applied = 0
    with lease.transaction() as conn:
        known = {one.number for one in decisions.chain(conn, name)}
        decisions.restore(conn, taken)
        made: dict[str, datetime] = {}
        spoken: dict[tuple[str, str], datetime] = {}
        newest = 0
        for _, event in sorted(events, key=lambda pair: pair[0]):
            if isinstance(event, Decision):
                if event.number not in known:
                    # Of the token of its time, so that what was done after it still stands over it.
                    decide.apply(conn, name, event, newest)
                continue
            newest = max(newest, event.token)
            before = runs.run(conn, event.run_id)
            if before is None:
                _insert_run(conn, event)
            if before is None or event.run_id in made:
                made[event.run_id] = event.at
                spoken[event.run_id, event.model] = event.at
            if sidecar_rows.apply(conn, event, sidecar_name(event), event.at):
                applied += 1
                _note_intent(conn, event)
                if event.run_id in made and before is not None and before.status is not RunStatus.OPEN:
                    _begin_again(conn, event)
        for run_id, last in made.items():
            rebuilt = runs.run(conn, run_id)
            if rebuilt is not None and rebuilt.status is RunStatus.OPEN:
                told = "rebuilt from the lake, which does not say how it ended"
                runs.close_run(conn, rebuilt, RunStatus.FAILED, last, error=told)
        _note_taken_over(conn, name, spoken)
    return applied


def _begin_again(conn: sql.Connection, event: Sidecar) -> None:
    """A rebuilt run that had ended was done again: what its gate has judged is not this."""
    gate = stage_rows.of_run(conn, event.run_id).get((Stage.GATE, "*"))
    judged = (gate.token, gate.sequence) if gate is not None else (0, 0)
    if event.stage in (*WORK, Stage.DBT) and (event.token, event.sequence) > judged:
        runs.wait_again(conn, event.run_id)


def _note_taken_over(conn: sql.Connection, pipeline: str, spoken: Mapping[tuple[str, str], datetime]) -> None:
    """Models of rebuilt runs that another attempt has done since the run last spoke of them wait for nobody."""
    done = completions.whole(conn, pipeline)
    for (run_id, model), at in spoken.items():
        rebuilt = runs.run(conn, run_id)
        entry = done.get((rebuilt.batch or "", model)) if rebuilt is not None else None
        if entry is not None and entry[0].run_id != run_id and entry[1] >= at:
            runs.supersede_model(conn, run_id, model)


def _note_gone(session: Session, lease: Lease) -> tuple[str, ...]:
    """Mark as removed what the lake no longer holds: sidecars say what was made, not what was tidied away since."""
    name = session.pipeline.name
    there = {stored.name for kind in BATCH_KINDS for stored in session.lake.store.list(f"{kind}/{name}/")}
    with lease.transaction() as conn:
        gone = {path: status for path, status in ledger.artifact_paths(conn, name).items() if path not in there}
        ledger.mark_removed(conn, sorted(gone), session.clock.now())
    keeps = session.pipeline.keeps
    lost = sum(status == "published" and (keeps or not is_passing(path)) for path, status in gone.items())
    if not lost:
        return ()
    return (f"{lost} published object(s) are not in the lake any more: retention removed them, or they were lost",)


def _insert_run(conn: sql.Connection, sidecar: Sidecar) -> None:
    facts = sidecar.run
    started = instant(facts["started_at"])
    run = Run(
        run_id=sidecar.run_id,
        invocation=facts["invocation"],
        pipeline=sidecar.pipeline,
        batch=sidecar.batch,
        attempt=facts["attempt"],
        kind=facts["kind"],
        models=tuple(facts["models"]),
        status=RunStatus.OPEN,
        retry=0,
        started_at=started,
        touched_at=started,
        last_command=facts["last_command"],
        config=facts["config"],
        config_hash=facts["config_hash"],
        token=sidecar.token,
        window=Window.from_json(facts["window"]) if facts.get("window") else None,
    )
    runs.insert_run(conn, run, started, "rebuilt from the lake")
    runs.add_models(conn, run, sidecar.token)


def _note_intent(conn: sql.Connection, sidecar: Sidecar) -> None:
    meant = sidecar.work.details.get("intent")
    # What was superseded was never meant to be published.
    if sidecar.stage is Stage.LOAD and meant and not sidecar.work.details.get("superseded_by"):
        intent = Intent(sidecar.model, meant["generation"], meant["digest"], meant["settings"], LoadMode(meant["mode"]))
        runs.write_intent(conn, sidecar.run_id, intent, sidecar.token)


def _decisions(session: Session) -> Iterator[Decision]:
    for stored in session.lake.store.list(f"_decisions/{session.pipeline.name}/"):
        with session.lake.open(stored.name) as file:
            yield Decision.from_json(json.loads(file.read()))


def _open_again(session: Session, lease: Lease, ahead: Iterable[Receipt]) -> None:
    """Let runs that died behind their COMMIT, and before they said so in the lake, go on with what they published.

    Of batches that were done before: one that was not is work in any case, and finds its receipt.
    """
    name = session.pipeline.name
    with session.state.read() as conn:
        waiting = completions.unjudged(conn, name)
    published: dict[str, list[Receipt]] = {}
    for receipt in ahead:
        if receipt.model not in waiting.get(receipt.batch, ()):
            published.setdefault(receipt.run_id, []).append(receipt)
    for run_id, receipts in published.items():
        with lease.transaction() as conn:
            died, at_work = runs.run(conn, run_id), runs.open_runs(conn, name)
            if died is None:
                continue
            if died.status is not RunStatus.OPEN:
                taken = {model for _, models in at_work for model in models}
                models = sorted({*stage_rows.own_models(conn, run_id), *(one.model for one in receipts)} - taken)
                stage_rows.put_back(conn, run_id, (Stage.LOAD, Stage.DBT, Stage.GATE), models, session.clock.now())
                runs.update_run(conn, run_id, status=RunStatus.OPEN.value, ended_at=None, error=None)
                runs.open_models(conn, died, models, lease.token, redo=died.kind in REDONE)
            for one in receipts:
                runs.write_intent(
                    conn, run_id, Intent(one.model, one.generation, one.digest, one.settings, one.mode), lease.token
                )


def _compared(session: Session, lease: Lease) -> tuple[str, ...]:
    """What the target holds that the state does not know, and the reverse, of which its models stay marked."""
    name = session.pipeline.name
    receipts = {(one.batch, one.model): one for one in session.warehouse.receipts(name)}
    with session.state.read() as conn:
        done: dict[tuple[str, str], Completion] = {key: one for key, (one, _) in completions.whole(conn, name).items()}
    ahead = [one for key, one in sorted(receipts.items()) if key not in done or done[key].generation < one.generation]
    _open_again(session, lease, [one for one in ahead if (one.batch, one.model) in done])
    with session.state.read() as conn:
        before, unjudged = completions.not_completed(conn, name), completions.unjudged(conn, name)
    told = []
    for one in ahead:
        # What was judged, and is done no more, a person has let go of by a reset.
        let_go = one.model in before.get(one.batch, set()) - unjudged.get(one.batch, set())
        what = (
            "was done before a reset and stays as it is; a run takes it again while the source shows it"
            if let_go
            else f"was published by {one.run_id} and never came to its gate; the next run finishes it"
        )
        told.append(f"{one.model}: batch {one.batch} {what}")
    gone = tables_gone(session, session.pipeline.models)
    lacks = lacking(session, session.pipeline.models, receipts.values(), gone)
    # Receipts of a table that is gone are still to be voided, whatever the state knows of them.
    left = sorted({*lacks, *(one.model for one in receipts.values() if one.model in gone)})
    with lease.transaction() as conn:
        runs.update_pipeline(conn, name, rebuild=left or None)
    for model, batches in sorted(lacks.items()):
        told.append(
            f"{model}: {', '.join(batches)} was done, but the target does not hold it so: the next run builds it again"
        )
    return tuple(told)
