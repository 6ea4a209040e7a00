"""How runs stand, for those who are shown them elsewhere; and whether that has changed since they were."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from ingestkit.model import sha256_of
from ingestkit.ports import RunEvent
from ingestkit.states import views
from ingestkit.states.tables import pipeline, pipeline_run

# No change of a run is without one of these. The last are texts, since nobody looks into them.
TELLING = (
    *(pipeline_run.c[name] for name in ("run_id", "status", "retry", "token", "touched_at")),
    *(sql.cast(pipeline_run.c[name], sql.Text) for name in ("phases_pending", "phases_failed")),
)
SHOWN = tuple(column for column in pipeline_run.c if column.name not in views.UNSHOWN)


def standing(conn: sql.Connection, name: str) -> dict[str, str]:
    """The events of how the pipeline's runs stand now, each with its run; much cheaper than what they say."""
    query = sql.select(*TELLING).where(pipeline_run.c.pipeline == name).order_by(pipeline_run.c.run_id)
    return {_id(row): row.run_id for row in conn.execute(query)}


def told(conn: sql.Connection, wanted: Collection[str]) -> list[RunEvent]:
    """What there is to say of these runs now, which may be more than when they were looked at."""
    return [_event(conn, run_id) for run_id in wanted]


def shown(conn: sql.Connection, name: str) -> str | None:
    """The mark of the events that were shown last, or None."""
    return conn.execute(sql.select(pipeline.c.runs_shown).where(pipeline.c.pipeline == name)).scalar()


def note_shown(conn: sql.Connection, name: str, mark: str) -> None:
    conn.execute(sql.update(pipeline).where(pipeline.c.pipeline == name).values(runs_shown=mark))


def _event(conn: sql.Connection, run_id: str) -> RunEvent:
    here = pipeline_run.c.run_id == run_id
    row = conn.execute(sql.select(*SHOWN).where(here)).mappings().one()
    run = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
    said = {key: value for key, value in run.items() if value is not None}
    event = _id(conn.execute(sql.select(*TELLING).where(here)).one())
    return RunEvent(event, run_id, row["token"], row["touched_at"], said)


def _id(telling: sql.Row[Any]) -> str:
    return sha256_of(tuple(telling))
