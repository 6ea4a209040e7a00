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


def forget(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """A stage done again says anew what it rejects; what earlier attempts held came to nothing, and is superseded."""
    conn.execute(
        sql.delete(quarantine).where(
            quarantine.c.run_id == sidecar.run_id,
            quarantine.c.model == sidecar.model,
            quarantine.c.token <= sidecar.token,
        )
    )
    conn.execute(
        sql.update(quarantine)
        .where(
            quarantine.c.pipeline == sidecar.pipeline,
            quarantine.c.batch == sidecar.batch,
            quarantine.c.model == sidecar.model,
            quarantine.c.run_id != sidecar.run_id,
            quarantine.c.status == "held",
            quarantine.c.token <= sidecar.token,
        )
        .values(status="superseded", at=now)
    )


def release(conn: sql.Connection, sidecar: Sidecar, now: datetime) -> None:
    """With the publish, this run's rejects are open; those of other attempts at the same rows are superseded."""
    where = (
        quarantine.c.pipeline == sidecar.pipeline,
        quarantine.c.batch == sidecar.batch,
        quarantine.c.model == sidecar.model,
    )
    mine = quarantine.c.run_id == sidecar.run_id
    conn.execute(
        sql.update(quarantine).where(*where, mine, quarantine.c.status == "held").values(status="open", at=now)
    )
    # What was given up stays given up, as long as there is no more of it.
    before = quarantine.alias("before")
    same = ("model", "file_id", "column", "code")
    given_up = sql.exists().where(
        before.c.status == "discarded",
        before.c.run_id != quarantine.c.run_id,
        before.c.count >= quarantine.c.count,
        *(before.c[name] == quarantine.c[name] for name in same),
    )
    conn.execute(
        sql.update(quarantine)
        .where(*where, mine, quarantine.c.status == "open", given_up)
        .values(status="discarded", at=now)
    )
    # What a replay took in again, it took in; any other attempt only says it anew.
    gone = "replayed" if sidecar.run.get("kind") == "replay" else "superseded"
    conn.execute(
        sql.update(quarantine).where(*where, ~mine, quarantine.c.status.in_(WAITING)).values(status=gone, at=now)
    )


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
