"""Rejects in the state: held until their run's publish, then open for a person, or superseded by another attempt's."""

from datetime import datetime

import sqlalchemy as sql

from ingestkit.model import Sidecar
from ingestkit.states.tables import quarantine


def forget(conn: sql.Connection, sidecar: Sidecar) -> None:
    """A stage done again in the same run says anew what it rejects."""
    conn.execute(
        sql.delete(quarantine).where(
            quarantine.c.run_id == sidecar.run_id,
            quarantine.c.model == sidecar.model,
            quarantine.c.token <= sidecar.token,
        )
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
    conn.execute(
        sql.update(quarantine)
        .where(*where, ~mine, quarantine.c.status.in_(["held", "open"]))
        .values(status="superseded", at=now)
    )


def batches_waiting(conn: sql.Connection, pipeline: str, model: str) -> set[str]:
    query = (
        sql.select(quarantine.c.batch)
        .distinct()
        .where(quarantine.c.pipeline == pipeline, quarantine.c.model == model, quarantine.c.status == "open")
    )
    return {batch for (batch,) in conn.execute(query)}
