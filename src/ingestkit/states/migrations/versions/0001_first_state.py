"""The first state: every table as it stood when the program was first handed out. Never edited; changes come after."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None

INSTANT = sql.String(32).with_variant(sql.DateTime(timezone=True), "postgresql")
TEXT = sql.Text().with_variant(sql.String(collation="C"), "postgresql")


def words(length: int) -> sql.types.TypeEngine[str]:
    return sql.String(length).with_variant(sql.String(collation="C"), "postgresql")


def upgrade() -> None:
    create_runs()
    create_files()
    create_owners()
    create_deliveries()


def create_runs() -> None:
    op.create_table(
        "pipeline",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("state_id", words(255), nullable=False),
        sql.Column("token_counter", sql.BigInteger(), nullable=False),
        sql.Column("paused_at", INSTANT),
        sql.Column("paused_by", TEXT),
        sql.Column("paused_reason", TEXT),
        sql.Column("held_at", INSTANT),
        sql.Column("held_reason", TEXT),
        sql.Column("floors", sql.JSON(), nullable=False),
        sql.Column("pins", sql.JSON(), nullable=False),
        sql.Column("rebuild", sql.JSON()),
        sql.Column("moved_at", INSTANT),
        sql.PrimaryKeyConstraint("pipeline"),
    )
    op.create_table(
        "pipeline_run",
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("invocation", words(255), nullable=False),
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255)),
        sql.Column("attempt", sql.Integer(), nullable=False),
        sql.Column("kind", words(16), nullable=False),
        sql.Column("models", sql.JSON(), nullable=False),
        sql.Column("window_start", INSTANT),
        sql.Column("window_end", INSTANT),
        sql.Column("window_seconds", sql.BigInteger()),
        sql.Column("target_date", words(10)),
        sql.Column("status", words(24), nullable=False),
        sql.Column("verdict", words(24)),
        sql.Column("retry", sql.Integer(), nullable=False),
        sql.Column("started_at", INSTANT, nullable=False),
        sql.Column("ended_at", INSTANT),
        sql.Column("seconds", sql.Float()),
        sql.Column("duration", words(32)),
        sql.Column("phases_completed", sql.JSON(), nullable=False),
        sql.Column("phases_skipped", sql.JSON(), nullable=False),
        sql.Column("phases_failed", sql.JSON(), nullable=False),
        sql.Column("phases_pending", sql.JSON(), nullable=False),
        sql.Column("config", sql.JSON(), nullable=False),
        sql.Column("config_hash", words(64), nullable=False),
        sql.Column("counts", sql.JSON(), nullable=False),
        sql.Column("error", TEXT),
        sql.Column("exit_code", sql.Integer()),
        sql.Column("owner", TEXT),
        sql.Column("last_command", words(32), nullable=False),
        sql.Column("touched_at", INSTANT, nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("pipeline_run_by_batch", "pipeline_run", ["pipeline", "batch"])
    op.create_index("pipeline_run_by_status", "pipeline_run", ["pipeline", "status"])
    op.create_index("pipeline_run_by_start", "pipeline_run", ["pipeline", "started_at"])
    op.create_table(
        "run_model",
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255)),
        sql.Column("open_key", words(512)),
        sql.Column("redo", sql.Boolean(), nullable=False),
        sql.Column("generation", sql.Integer()),
        sql.Column("digest", words(64)),
        sql.Column("settings", words(64)),
        sql.Column("mode", words(16)),
        sql.Column("status", words(24), nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("run_id", "model"),
        sql.UniqueConstraint("open_key"),
    )
    op.create_index("run_model_by_batch", "run_model", ["pipeline", "batch", "model"])
    op.create_table(
        "pipeline_stage",
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("stage", words(16), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255)),
        sql.Column("status", words(16), nullable=False),
        sql.Column("retry", sql.Integer(), nullable=False),
        sql.Column("started_at", INSTANT),
        sql.Column("ended_at", INSTANT),
        sql.Column("expected_seconds", sql.Float()),
        sql.Column("seconds", sql.Float()),
        sql.Column("error", TEXT),
        sql.Column("details", sql.JSON()),
        sql.Column("sidecar", sql.JSON()),
        sql.Column("sidecar_path", TEXT),
        sql.Column("settings", words(64)),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("sequence", sql.Integer(), nullable=False),
        sql.PrimaryKeyConstraint("run_id", "stage", "model"),
    )
    op.create_index("pipeline_stage_by_model", "pipeline_stage", ["pipeline", "stage", "model"])
    op.create_table(
        "completion",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("status", words(16), nullable=False),
        sql.Column("mode", words(16)),
        sql.Column("generation", sql.Integer(), nullable=False),
        sql.Column("digest", words(64)),
        sql.Column("settings", words(64)),
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("counts", sql.JSON(), nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.PrimaryKeyConstraint("pipeline", "batch", "model"),
    )


def create_files() -> None:
    op.create_table(
        "file_manifest",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("path", words(1024), nullable=False),
        sql.Column("version", sql.Integer(), nullable=False),
        sql.Column("id", words(32), nullable=False),
        sql.Column("batch", words(255), nullable=False),
        sql.Column("model", words(255)),
        sql.Column("status", words(16), nullable=False),
        sql.Column("size", sql.BigInteger(), nullable=False),
        sql.Column("mtime", INSTANT, nullable=False),
        sql.Column("sighted_at", INSTANT, nullable=False),
        sql.Column("sha256", words(64)),
        sql.Column("raw", TEXT),
        sql.Column("read", sql.BigInteger()),
        sql.Column("valid", sql.BigInteger()),
        sql.Column("rejected", sql.BigInteger()),
        sql.Column("loaded", sql.BigInteger()),
        sql.Column("reason", TEXT),
        sql.Column("run_id", words(255)),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.PrimaryKeyConstraint("pipeline", "path", "version"),
        sql.UniqueConstraint("id"),
    )
    op.create_index("file_manifest_by_batch", "file_manifest", ["pipeline", "batch"])
    op.create_index("file_manifest_by_status", "file_manifest", ["pipeline", "status"])
    op.create_index("file_manifest_by_sha256", "file_manifest", ["sha256"])
    op.create_table(
        "artifact",
        sql.Column("path", words(1024), nullable=False),
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("file_id", words(32)),
        sql.Column("kind", words(16), nullable=False),
        sql.Column("sha256", words(64), nullable=False),
        sql.Column("bytes", sql.BigInteger(), nullable=False),
        sql.Column("rows", sql.BigInteger()),
        sql.Column("settings", words(64), nullable=False),
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("status", words(16), nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.PrimaryKeyConstraint("path"),
    )
    op.create_index("artifact_by_batch", "artifact", ["pipeline", "batch", "model"])
    op.create_index("artifact_by_file", "artifact", ["file_id"])
    op.create_table(
        "quarantine",
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("file_id", words(32), nullable=False),
        sql.Column("column", words(255), nullable=False),
        sql.Column("code", words(64), nullable=False),
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255), nullable=False),
        sql.Column("path", words(1024), nullable=False),
        sql.Column("count", sql.BigInteger(), nullable=False),
        sql.Column("samples", sql.JSON(), nullable=False),
        sql.Column("status", words(16), nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.PrimaryKeyConstraint("run_id", "model", "file_id", "column", "code"),
    )
    op.create_index("quarantine_by_batch", "quarantine", ["pipeline", "batch", "model"])
    op.create_table(
        "schema_drift",
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("file_id", words(32), nullable=False),
        sql.Column("kind", words(32), nullable=False),
        sql.Column("column", words(255), nullable=False),
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("batch", words(255), nullable=False),
        sql.Column("expected", TEXT),
        sql.Column("found", TEXT),
        sql.Column("action", words(16), nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.PrimaryKeyConstraint("run_id", "model", "file_id", "kind", "column"),
    )


def create_owners() -> None:
    op.create_table(
        "lease",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("owner", sql.JSON()),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("command", TEXT),
        sql.Column("since", INSTANT),
        sql.Column("beat", INSTANT),
        sql.Column("expires", INSTANT),
        sql.Column("wanted_at", INSTANT),
        sql.PrimaryKeyConstraint("pipeline", "model"),
    )
    op.create_table(
        "decision",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("number", sql.Integer(), nullable=False),
        sql.Column("kind", words(16), nullable=False),
        sql.Column("subject", sql.JSON(), nullable=False),
        sql.Column("reason", TEXT),
        sql.Column("by", TEXT),
        sql.Column("os_user", TEXT, nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.Column("previous", words(64), nullable=False),
        sql.Column("hash", words(64), nullable=False),
        sql.PrimaryKeyConstraint("pipeline", "number"),
    )


def create_deliveries() -> None:
    op.create_table(
        "sync_row",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("model", words(255), nullable=False),
        sql.Column("target", words(255), nullable=False),
        sql.Column("key", words(512), nullable=False),
        sql.Column("run_id", words(255), nullable=False),
        sql.Column("batch", words(255)),
        sql.Column("hash", words(64)),
        sql.Column("status", words(16), nullable=False),
        sql.Column("target_id", words(255)),
        sql.Column("code", words(128)),
        sql.Column("message", TEXT),
        sql.Column("tries", sql.Integer(), nullable=False),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.Column("at", INSTANT, nullable=False),
        sql.PrimaryKeyConstraint("pipeline", "model", "target", "key"),
    )
    op.create_index("sync_row_by_status", "sync_row", ["pipeline", "status"])
    op.create_table(
        "alert",
        sql.Column("pipeline", words(255), nullable=False),
        sql.Column("incident", words(255), nullable=False),
        sql.Column("kind", words(32), nullable=False),
        sql.Column("status", words(16), nullable=False),
        sql.Column("count", sql.Integer(), nullable=False),
        sql.Column("run_id", words(255)),
        sql.Column("message", TEXT, nullable=False),
        sql.Column("first_at", INSTANT, nullable=False),
        sql.Column("last_at", INSTANT, nullable=False),
        sql.Column("sent_at", INSTANT),
        sql.Column("recovered_at", INSTANT),
        sql.Column("token", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("pipeline", "incident"),
    )
