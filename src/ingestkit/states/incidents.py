"""Incidents that people are told of: one row for each and for each channel, which waits until it was told."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sql

from ingestkit.model import Sight
from ingestkit.states.tables import alert

OPEN, RECOVERED, HAPPENED, WATCHED = "open", "recovered", "happened", "watched"
REMEMBERED = timedelta(days=30)
"""For how long it is known that something happened and was told."""


@dataclass(frozen=True, slots=True)
class Incident:
    pipeline: str
    key: str
    kind: str
    status: str
    count: int
    run_id: str | None
    text: str
    hint: str | None
    first_at: datetime
    last_at: datetime
    sent_at: datetime | None
    """When its status was told; None: it is to be."""
    recovered_at: datetime | None

    @property
    def channel(self) -> str:
        return self.key.rpartition("@")[2]

    @property
    def about(self) -> tuple[str, str]:
        """What it is, whoever is told of it."""
        return self.pipeline, self.key.rpartition("@")[0]


def known(conn: sql.Connection, pipeline: str | None = None) -> list[Incident]:
    """All of a pipeline, or of all; the newest first."""
    query = sql.select(alert).where(alert.c.kind != WATCHED).order_by(alert.c.last_at.desc(), alert.c.incident)
    if pipeline is not None:
        query = query.where(alert.c.pipeline == pipeline)
    return [_incident(row) for row in conn.execute(query)]


def see(
    conn: sql.Connection, pipeline: str, sight: Sight, channel: str, now: datetime, remind: timedelta | None
) -> int:
    """Note that it is so: it is told once, and counted until it is over, or forgotten. How often it was seen."""
    key = sight.key(channel)
    row = conn.execute(_one(pipeline, key)).one_or_none()
    found = None if row is None else _incident(row)
    text = sight.text if sight.hint is None else f"{sight.text}\n{sight.hint}"
    status = HAPPENED if sight.happened else OPEN
    values: dict[str, object] = {"message": text, "run_id": sight.run_id, "last_at": now}
    if found is not None and found.status == status:
        again = remind is not None and found.sent_at is not None and now - found.sent_at >= remind
        values |= {"count": found.count + 1} | ({"sent_at": None} if again else {})
        conn.execute(_change(pipeline, key).values(**values))
        return found.count + 1
    values |= {"kind": sight.kind, "status": status, "count": 1, "first_at": now, "sent_at": None, "recovered_at": None}
    if found is not None:
        conn.execute(_change(pipeline, key).values(**values))
    else:
        conn.execute(sql.insert(alert).values(pipeline=pipeline, incident=key, token=0, **values))
    return 1


def forget(conn: sql.Connection, pipeline: str, now: datetime) -> None:
    """Forget what happened long ago and was told."""
    conn.execute(
        sql.delete(alert).where(
            alert.c.pipeline == pipeline,
            alert.c.status == HAPPENED,
            alert.c.sent_at.is_not(None),
            alert.c.last_at < now - REMEMBERED,
        )
    )


def recover(conn: sql.Connection, incident: Incident, now: datetime, *, told: bool) -> None:
    """Note that it is over, which is told too, or is not."""
    values = {"status": RECOVERED, "recovered_at": now, "sent_at": None if told else now}
    conn.execute(_change(incident.pipeline, incident.key).values(**values))


def sent(conn: sql.Connection, incident: Incident, now: datetime) -> None:
    """Note that it was told, unless it has become another meanwhile."""
    conn.execute(
        _change(incident.pipeline, incident.key)
        .where(alert.c.status == incident.status, alert.c.first_at == incident.first_at)
        .values(sent_at=now)
    )


def watched_since(conn: sql.Connection, pipeline: str, now: datetime) -> datetime:
    """Since when the pipeline is looked at; from now on where it was not."""
    row = conn.execute(_one(pipeline, WATCHED)).one_or_none()
    if row is not None:
        return _incident(row).first_at
    values = {"kind": WATCHED, "status": WATCHED, "count": 0, "message": "", "first_at": now, "last_at": now}
    conn.execute(sql.insert(alert).values(pipeline=pipeline, incident=WATCHED, token=0, sent_at=now, **values))
    return now


def _one(pipeline: str, key: str) -> sql.Select[tuple[object, ...]]:
    return sql.select(alert).where(alert.c.pipeline == pipeline, alert.c.incident == key)


def _change(pipeline: str, key: str) -> sql.Update:
    return sql.update(alert).where(alert.c.pipeline == pipeline, alert.c.incident == key)


def _incident(row: sql.Row[tuple[object, ...]]) -> Incident:
    text, _, hint = row.message.partition("\n")
    return Incident(
        row.pipeline,
        row.incident,
        row.kind,
        row.status,
        row._mapping["count"],
        row.run_id,
        text,
        hint or None,
        row.first_at,
        row.last_at,
        row.sent_at,
        row.recovered_at,
    )
