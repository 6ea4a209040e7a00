"""How runs stand, for those who are shown them elsewhere; and whether that has changed since they were."""

from collections.abc import Mapping
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


def mark(conn: sql.Connection, name: str) -> str:
    """What changes when one of the pipeline's runs does, much cheaper than the runs themselves."""
    query = sql.select(*TELLING).where(pipeline_run.c.pipeline == name).order_by(pipeline_run.c.run_id)
    return sha256_of([tuple(row) for row in conn.execute(query)])


def shown(conn: sql.Connection, name: str) -> str | None:
    """The mark of the runs that were shown last, or None."""
    return conn.execute(sql.select(pipeline.c.runs_shown).where(pipeline.c.pipeline == name)).scalar()


def note_shown(conn: sql.Connection, name: str, seen: str) -> None:
    conn.execute(sql.update(pipeline).where(pipeline.c.pipeline == name).values(runs_shown=seen))


def of_pipeline(conn: sql.Connection, name: str) -> list[RunEvent]:
    """How each of its runs stands now."""
    return [_event(row) for row in views.runs(conn, {"pipeline": name}, limit=None)]


def _event(row: Mapping[str, Any]) -> RunEvent:
    run = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
    said = {key: value for key, value in run.items() if value is not None}
    return RunEvent(sha256_of(said), row["run_id"], row["token"], row["touched_at"], said)
