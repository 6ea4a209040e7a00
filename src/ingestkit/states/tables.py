"""The tables of the state database. What is asked of them lives beside; how they change lives in `migrations`."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

HEAD = "0008"
"""The newest migration; a database of another version is migrated, or refused when it is newer."""


WRITES = "ingestkit_writes"
"""The execution option of a connection that says whether its transaction writes."""


class Instant(TypeDecorator[datetime]):
    """An instant in UTC. SQLite has no such type, so there it is ISO text, which sorts as time does."""

    impl = sql.String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        shared: TypeEngine[Any] = sql.DateTime(timezone=True)
        embedded: TypeEngine[Any] = sql.String(32)
        return dialect.type_descriptor(shared if dialect.name == "postgresql" else embedded)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> object:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    # The signature is SQLAlchemy's.
    def process_result_value(self, value: object, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None or isinstance(value, datetime):
            return None if value is None else value.astimezone(UTC)
        return datetime.fromisoformat(str(value)).astimezone(UTC)


class Words(TypeDecorator[str]):
    """Text that sorts by its characters everywhere; `length` is for databases whose keys have to have one."""

    impl = sql.Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        shared: TypeEngine[Any] = sql.String(collation="C")
        embedded: TypeEngine[Any] = sql.String(self.length) if self.length else sql.Text()
        return dialect.type_descriptor(shared if dialect.name == "postgresql" else embedded)

    # The signature is SQLAlchemy's.
    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        # No server takes a NUL; a header that is none may hold one.
        return None if value is None else value.replace("\0", "\N{SYMBOL FOR NULL}")


metadata = sql.MetaData()
Text = Words()
Key = Words(255)
Big = sql.BigInteger
# None in a row means SQL NULL; the type alone would store the JSON text null, which IS NULL does not find.
Json = sql.JSON(none_as_null=True)

version = sql.Table(
    "ingestkit_version",
    metadata,
    sql.Column("version_num", sql.String(32), nullable=False),
    sql.PrimaryKeyConstraint("version_num", name="ingestkit_version_pkc"),
)

pipeline = sql.Table(
    "pipeline",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("state_id", Key, nullable=False),
    sql.Column("token_counter", Big, nullable=False),
    sql.Column("paused_at", Instant),
    sql.Column("paused_by", Text),
    sql.Column("paused_reason", Text),
    sql.Column("held_at", Instant),
    sql.Column("held_reason", Text),
    sql.Column("floors", Json, nullable=False),
    sql.Column("pins", Json, nullable=False),
    sql.Column("rebuild", sql.JSON(none_as_null=True)),
    sql.Column("moved_at", Instant),
    sql.Column("windows_from", Instant),
    sql.Column("floor_ends", sql.JSON(none_as_null=True)),
    # What the runs looked like when they were last shown in the warehouse.
    sql.Column("runs_shown", Words(64)),
)

pipeline_run = sql.Table(
    "pipeline_run",
    metadata,
    sql.Column("run_id", Key, primary_key=True),
    sql.Column("invocation", Key, nullable=False),
    sql.Column("pipeline", Key, nullable=False),
    sql.Column("batch", Key),
    sql.Column("attempt", sql.Integer, nullable=False),
    sql.Column("kind", Words(16), nullable=False),
    sql.Column("models", Json, nullable=False),
    sql.Column("window_start", Instant),
    sql.Column("window_end", Instant),
    sql.Column("window_seconds", Big),
    sql.Column("target_date", Words(10)),
    sql.Column("status", Words(24), nullable=False),
    sql.Column("verdict", Words(24)),
    sql.Column("retry", sql.Integer, nullable=False),
    sql.Column("started_at", Instant, nullable=False),
    sql.Column("ended_at", Instant),
    sql.Column("seconds", sql.Float),
    sql.Column("duration", Words(32)),
    sql.Column("phases_completed", Json, nullable=False),
    sql.Column("phases_skipped", Json, nullable=False),
    sql.Column("phases_failed", Json, nullable=False),
    sql.Column("phases_pending", Json, nullable=False),
    sql.Column("config", Json, nullable=False),
    sql.Column("config_hash", Words(64), nullable=False),
    sql.Column("counts", Json, nullable=False),
    sql.Column("error", Text),
    sql.Column("exit_code", sql.Integer),
    sql.Column("owner", Text),
    sql.Column("last_command", Words(32), nullable=False),
    sql.Column("touched_at", Instant, nullable=False),
    sql.Column("token", Big, nullable=False),
    # The order in which the pipeline's runs were opened, whatever their clocks said.
    sql.Column("number", Big),
    sql.Index("pipeline_run_by_batch", "pipeline", "batch"),
    sql.Index("pipeline_run_by_status", "pipeline", "status"),
    sql.Index("pipeline_run_by_start", "pipeline", "started_at"),
    sql.Index("pipeline_run_by_number", "pipeline", "number"),
)

run_model = sql.Table(
    "run_model",
    metadata,
    sql.Column("run_id", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("pipeline", Key, nullable=False),
    sql.Column("batch", Key),
    sql.Column("open_key", Words(512), unique=True),
    sql.Column("redo", sql.Boolean, nullable=False),
    sql.Column("generation", sql.Integer),
    sql.Column("digest", Words(64)),
    sql.Column("settings", Words(64)),
    sql.Column("mode", Words(16)),
    sql.Column("status", Words(24), nullable=False),
    sql.Column("token", Big, nullable=False),
    sql.Index("run_model_by_batch", "pipeline", "batch", "model"),
)

pipeline_stage = sql.Table(
    "pipeline_stage",
    metadata,
    sql.Column("run_id", Key, primary_key=True),
    sql.Column("stage", Words(16), primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("pipeline", Key, nullable=False),
    sql.Column("batch", Key),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("retry", sql.Integer, nullable=False),
    sql.Column("started_at", Instant),
    sql.Column("ended_at", Instant),
    sql.Column("expected_seconds", sql.Float),
    sql.Column("seconds", sql.Float),
    sql.Column("error", Text),
    sql.Column("details", Json),
    sql.Column("sidecar", Json),
    sql.Column("sidecar_path", Text),
    sql.Column("settings", Words(64)),
    sql.Column("token", Big, nullable=False),
    sql.Column("sequence", sql.Integer, nullable=False),
    sql.Index("pipeline_stage_by_model", "pipeline", "stage", "model"),
)

# What meters tell: kept only where there are some, added to in the transaction that writes the stage's own row.
stage_total = sql.Table(
    "stage_total",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("stage", Words(16), primary_key=True),
    sql.Column("since", Instant, nullable=False),
    sql.Column("at", Instant, nullable=False),
    sql.Column("done", Big, nullable=False),
    sql.Column("skipped", Big, nullable=False),
    sql.Column("failed", Big, nullable=False),
    sql.Column("interrupted", Big, nullable=False),
    sql.Column("retries", Big, nullable=False),
    sql.Column("bytes", Big, nullable=False),
    sql.Column("seconds", sql.Float, nullable=False),
    sql.Column("rows_read", Big, nullable=False),
    sql.Column("rows_valid", Big, nullable=False),
    sql.Column("rows_rejected", Big, nullable=False),
    sql.Column("rows_loaded", Big, nullable=False),
    # How it ended last, and with which figures.
    sql.Column("last", Json),
)

completion = sql.Table(
    "completion",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("batch", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("mode", Words(16)),
    sql.Column("generation", sql.Integer, nullable=False),
    sql.Column("digest", Words(64)),
    sql.Column("settings", Words(64)),
    sql.Column("run_id", Key, nullable=False),
    sql.Column("counts", Json, nullable=False),
    sql.Column("token", Big, nullable=False),
    sql.Column("at", Instant, nullable=False),
    sql.Column("window_end", Instant),
)

file_manifest = sql.Table(
    "file_manifest",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("path", Words(1024), primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True),
    sql.Column("id", Words(32), nullable=False, unique=True),
    sql.Column("batch", Key, nullable=False),
    sql.Column("model", Key),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("size", Big, nullable=False),
    sql.Column("mtime", Instant, nullable=False),
    sql.Column("sighted_at", Instant, nullable=False),
    sql.Column("sha256", Words(64)),
    sql.Column("raw", Text),
    sql.Column("read", Big),
    sql.Column("valid", Big),
    sql.Column("rejected", Big),
    sql.Column("loaded", Big),
    sql.Column("reason", Text),
    sql.Column("run_id", Key),
    sql.Column("token", Big, nullable=False),
    sql.Column("at", Instant, nullable=False),
    # What became of it at the source. Apart from all else, which stages write as whole rows.
    sql.Column("released", Text),
    sql.Column("released_at", Instant),
    # When a version was seen first, however often it changed before it was taken.
    sql.Column("first_seen", Instant),
    # Whether a report said that it holds changes alone.
    sql.Column("changes", sql.Boolean),
    sql.Index("file_manifest_by_batch", "pipeline", "batch"),
    sql.Index("file_manifest_by_status", "pipeline", "status"),
    sql.Index("file_manifest_by_sha256", "sha256"),
    sql.Index("file_manifest_by_released", "pipeline", "released"),
)

BEING_REMOVED = sql.text("status = 'removing'")
"""Few rows at any time, asked for at the beginning of each command."""

artifact = sql.Table(
    "artifact",
    metadata,
    sql.Column("path", Words(1024), primary_key=True),
    sql.Column("pipeline", Key, nullable=False),
    sql.Column("batch", Key, nullable=False),
    sql.Column("model", Key, nullable=False),
    sql.Column("file_id", Words(32)),
    sql.Column("kind", Words(16), nullable=False),
    sql.Column("sha256", Words(64), nullable=False),
    sql.Column("bytes", Big, nullable=False),
    sql.Column("rows", Big),
    sql.Column("settings", Words(64), nullable=False),
    sql.Column("run_id", Key, nullable=False),
    sql.Column("token", Big, nullable=False),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("at", Instant, nullable=False),
    sql.Index("artifact_by_batch", "pipeline", "batch", "model"),
    sql.Index("artifact_by_file", "file_id"),
    sql.Index("artifact_being_removed", "pipeline", sqlite_where=BEING_REMOVED, postgresql_where=BEING_REMOVED),
)

quarantine = sql.Table(
    "quarantine",
    metadata,
    sql.Column("run_id", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("file_id", Words(32), primary_key=True),
    sql.Column("column", Key, primary_key=True),
    sql.Column("code", Words(64), primary_key=True),
    sql.Column("pipeline", Key, nullable=False),
    sql.Column("batch", Key, nullable=False),
    sql.Column("path", Words(1024), nullable=False),
    sql.Column("count", Big, nullable=False),
    sql.Column("samples", Json, nullable=False),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("token", Big, nullable=False),
    sql.Column("at", Instant, nullable=False),
    sql.Index("quarantine_by_batch", "pipeline", "batch", "model"),
)

schema_drift = sql.Table(
    "schema_drift",
    metadata,
    sql.Column("run_id", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("file_id", Words(32), primary_key=True),
    sql.Column("kind", Words(32), primary_key=True),
    sql.Column("column", Key, primary_key=True),
    sql.Column("pipeline", Key, nullable=False),
    sql.Column("batch", Key, nullable=False),
    sql.Column("expected", Text),
    sql.Column("found", Text),
    sql.Column("action", Words(16), nullable=False),
    sql.Column("token", Big, nullable=False),
    sql.Column("at", Instant, nullable=False),
)

lease = sql.Table(
    "lease",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("owner", Json),
    sql.Column("token", Big, nullable=False),
    sql.Column("command", Text),
    sql.Column("since", Instant),
    sql.Column("beat", Instant),
    sql.Column("expires", Instant),
    sql.Column("wanted_at", Instant),
)

decision = sql.Table(
    "decision",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("kind", Words(16), nullable=False),
    sql.Column("subject", Json, nullable=False),
    sql.Column("reason", Text),
    sql.Column("by", Text),
    sql.Column("os_user", Text, nullable=False),
    sql.Column("at", Instant, nullable=False),
    sql.Column("previous", Words(64), nullable=False),
    sql.Column("hash", Words(64), nullable=False),
)

sync_row = sql.Table(
    "sync_row",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("model", Key, primary_key=True),
    sql.Column("target", Key, primary_key=True),
    sql.Column("key", Words(512), primary_key=True),
    sql.Column("run_id", Key, nullable=False),
    sql.Column("batch", Key),
    sql.Column("hash", Words(64)),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("target_id", Key),
    sql.Column("code", Words(128)),
    sql.Column("message", Text),
    sql.Column("tries", sql.Integer, nullable=False),
    sql.Column("token", Big, nullable=False),
    sql.Column("at", Instant, nullable=False),
    sql.Index("sync_row_by_status", "pipeline", "status"),
)

alert = sql.Table(
    "alert",
    metadata,
    sql.Column("pipeline", Key, primary_key=True),
    sql.Column("incident", Key, primary_key=True),
    sql.Column("kind", Words(32), nullable=False),
    sql.Column("status", Words(16), nullable=False),
    sql.Column("count", sql.Integer, nullable=False),
    sql.Column("run_id", Key),
    sql.Column("message", Text, nullable=False),
    sql.Column("first_at", Instant, nullable=False),
    sql.Column("last_at", Instant, nullable=False),
    sql.Column("sent_at", Instant),
    sql.Column("recovered_at", Instant),
    sql.Column("token", Big, nullable=False),
)
