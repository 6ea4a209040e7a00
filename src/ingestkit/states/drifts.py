"""Drift of headers in the state: what files brought that their contracts did not say."""

import sqlalchemy as sql

from ingestkit.states.tables import schema_drift

ADDED = "added"
"""The action of a column that became one of the target."""


def added(conn: sql.Connection, pipeline: str, model: str) -> tuple[str, ...]:
    """The columns that files have added to a model's target, in the order in which they came; case is no difference."""
    columns = schema_drift.c
    query = (
        sql.select(columns.column)
        .where(columns.pipeline == pipeline, columns.model == model, columns.action == ADDED)
        .group_by(columns.column)
        .order_by(sql.func.min(columns.at), columns.column)
    )
    found: dict[str, str] = {}
    for name in conn.execute(query).scalars():
        found.setdefault(name.casefold(), name)
    return tuple(found.values())
