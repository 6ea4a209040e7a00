"""What of a pipeline is done, in short: asked by every command, over its whole past, so nothing else is read."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sql

from ingestkit.model import CompletionStatus
from ingestkit.states.tables import completion

Done: TypeAlias = Mapping[tuple[str, str], tuple[CompletionStatus, datetime]]
"""By (batch, model): how it was completed, and when."""


def done(conn: sql.Connection, pipeline: str) -> Done:
    columns = completion.c
    query = sql.select(columns.batch, columns.model, columns.status, columns.at).where(columns.pipeline == pipeline)
    return {
        (batch, model): (CompletionStatus(status), at) for batch, model, status, at in conn.execute(query).fetchall()
    }


def newest(keys: Iterable[tuple[str, str]], order: Callable[[str], Any]) -> dict[str, str]:
    """The newest of these batches by model."""
    found: dict[str, str] = {}
    for batch, model in keys:
        if model not in found or order(found[model]) < order(batch):
            found[model] = batch
    return found
