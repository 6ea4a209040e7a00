"""Rejects in the state: held until their run's publish, then open for a person, or superseded by another attempt's."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import Sidecar
from ingestkit.states.tables import quarantine

Row: TypeAlias = dict[str, Any]

WAITING = ("held", "open")
"""Held until their run's publish; open for a person from then on."""


# Each model of a run comes by these, so that they are made once.
_BATCH = (
    quarantine.c.pipeline == sql.bindparam("of"),
    quarantine.c.batch == sql.bindparam("key"),
    quarantine.c.model == sql.bindparam("one"),
)
_MINE = quarantine.c.run_id == sql.bindparam("run")
_NOT_NEWER = quarantine.c.token <= sql.bindparam("mine")
_GIVEN_UP = quarantine.alias("given_up")
_STAYS_GIVEN_UP = sql.exists().where(
    _GIVEN_UP.c.status == "discarded",
    _GIVEN_UP.c.run_id != quarantine.c.run_id,
    _GIVEN_UP.c.count >= quarantine.c.count,
    *(_GIVEN_UP.c[name] == quarantine.c[name] for name in ("model", "file_id", "column", "code")),
)


def _changed(*where: sql.ColumnElement[bool]) -> sql.Update:
    return sql.update(quarantine).where(*where).values(status=sql.bindparam("now_is"), at=sql.bindparam("now"))


SAID = sql.select((quarantine.c.run_id == sql.bindparam("run")).label("mine")).distinct().where(*_BATCH)
SAID_BEFORE = sql.delete(quarantine).where(_MINE, quarantine.c.model == sql.bindparam("one"), _NOT_NEWER)
HELD_BEFORE = _changed(*_BATCH, ~_MINE, quarantine.c.status == "held", _NOT_NEWER)
HELD = _changed(*_BATCH, _MINE, quarantine.c.status == "held")
# What was given up stays given up, as long as there is no more of it.
GIVEN_UP = _changed(*_BATCH, _MINE, quarantine.c.status == "open", _STAYS_GIVEN_UP)
OF_OTHERS = _changed(*_BATCH, ~_MINE, quarantine.c.status.in_(WAITING))


def forget(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """A stage done again says anew what it rejects; what earlier attempts held came to nothing, and is superseded."""
    here = _here(sidecar)
    # Most batches reject nothing, and a statement that finds nothing costs as much as one that does.
    if not conn.execute(SAID, here).all():
        return
    conn.execute(SAID_BEFORE, {"run": sidecar.run_id, "one": sidecar.model, "mine": sidecar.token})
    conn.execute(HELD_BEFORE, here | {"mine": sidecar.token, "now_is": "superseded", "now": now})


def release(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """With the publish, this run's rejects are open; those of other attempts at the same rows are superseded."""
    here = _here(sidecar)
    known = conn.execute(SAID, here).all()
    here["now"] = now
    if any(row.mine for row in known):
        conn.execute(HELD, here | {"now_is": "open"})
        conn.execute(GIVEN_UP, here | {"now_is": "discarded"})
    if any(not row.mine for row in known):
        # What a replay took in again, it took in; any other attempt only says it anew.
        gone = "replayed" if sidecar.run.get("kind") == "replay" else "superseded"
        conn.execute(OF_OTHERS, here | {"now_is": gone})


def _here(sidecar: Sidecar) -> Row:
    return {"of": sidecar.pipeline, "key": sidecar.batch, "one": sidecar.model, "run": sidecar.run_id}


def batches_waiting(conn: sql.Connection, pipeline: str, model: str) -> set[str]:
    query = (
        sql.select(quarantine.c.batch)
        .distinct()
        .where(quarantine.c.pipeline == pipeline, quarantine.c.model == model, quarantine.c.status.in_(WAITING))
    )
    return {batch for (batch,) in conn.execute(query)}


def waiting_models(conn: sql.Connection, pipeline: str, batch: str) -> set[str]:
    """The models of a batch with rejects that wait for a person."""
    query = (
        sql.select(quarantine.c.model)
        .distinct()
        .where(quarantine.c.pipeline == pipeline, quarantine.c.batch == batch, quarantine.c.status.in_(WAITING))
    )
    return {model for (model,) in conn.execute(query)}


def chosen(conn: sql.Connection, pipeline: str, wanted: Mapping[str, str | None], statuses: Sequence[str]) -> list[Row]:
    """The rows of these statuses where each named column has its value; those without a value are not asked about."""
    return [
        dict(row) for row in conn.execute(sql.select(quarantine).where(*_are(pipeline, wanted, statuses))).mappings()
    ]


def step_over(conn: sql.Connection, pipeline: str, batch: str, at: datetime) -> None:
    """What attempts at a batch that is stepped over have held came to nothing."""
    conn.execute(
        sql.update(quarantine).where(*_are(pipeline, {"batch": batch}, ("held",))).values(status="superseded", at=at)
    )


def discard(conn: sql.Connection, pipeline: str, wanted: Mapping[str, str | None], at: datetime) -> None:
    """Rejects that wait are of no more interest to anybody."""
    conn.execute(sql.update(quarantine).where(*_are(pipeline, wanted, WAITING)).values(status="discarded", at=at))


def _are(pipeline: str, wanted: Mapping[str, str | None], statuses: Sequence[str]) -> list[sql.ColumnElement[bool]]:
    named = [quarantine.c[name] == value for name, value in wanted.items() if value is not None]
    return [quarantine.c.pipeline == pipeline, quarantine.c.status.in_(statuses), *named]
