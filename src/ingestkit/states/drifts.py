"""Drift of headers in the state: what files brought that their contracts did not say."""

import sqlalchemy as sql

from ingestkit.states.tables import schema_drift

ADDED = "added"
"""The action of a column that became one of the target."""


def added(conn: sql.Connection, pipeline: str) -> dict[str, tuple[str, ...]]:
    """The columns that files have added to each model's target, as they came; case is no difference."""
    columns = schema_drift.c
    query = (
        sql.select(columns.model, columns.column)
        .where(columns.pipeline == pipeline, columns.action == ADDED)
        .group_by(columns.model, columns.column)
        .order_by(sql.func.min(columns.at), columns.column)
    )
    found: dict[str, dict[str, str]] = {}
    for model, name in conn.execute(query):
        found.setdefault(model, {}).setdefault(name.casefold(), name)
    return {model: tuple(names.values()) for model, names in found.items()}
