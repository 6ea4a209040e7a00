-- The state database of version 0008, generated from states/tables.py; a test keeps them in step.

CREATE TABLE alert (
    pipeline VARCHAR(255) NOT NULL,
    incident VARCHAR(255) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    status VARCHAR(16) NOT NULL,
    count INTEGER NOT NULL,
    run_id VARCHAR(255),
    message TEXT NOT NULL,
    first_at VARCHAR(32) NOT NULL,
    last_at VARCHAR(32) NOT NULL,
    sent_at VARCHAR(32),
    recovered_at VARCHAR(32),
    token BIGINT NOT NULL,
    PRIMARY KEY (pipeline, incident)
);

CREATE TABLE artifact (
    path VARCHAR(1024) NOT NULL,
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    file_id VARCHAR(32),
    kind VARCHAR(16) NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    bytes BIGINT NOT NULL,
    rows BIGINT,
    settings VARCHAR(64) NOT NULL,
    run_id VARCHAR(255) NOT NULL,
    token BIGINT NOT NULL,
    status VARCHAR(16) NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (path)
);

CREATE INDEX artifact_being_removed ON artifact (pipeline) WHERE status = 'removing';

CREATE INDEX artifact_by_batch ON artifact (pipeline, batch, model);

CREATE INDEX artifact_by_file ON artifact (file_id);

CREATE TABLE completion (
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    status VARCHAR(16) NOT NULL,
    mode VARCHAR(16),
    generation INTEGER NOT NULL,
    digest VARCHAR(64),
    settings VARCHAR(64),
    run_id VARCHAR(255) NOT NULL,
    counts JSON NOT NULL,
    token BIGINT NOT NULL,
    at VARCHAR(32) NOT NULL,
    window_end VARCHAR(32),
    PRIMARY KEY (pipeline, batch, model)
);

CREATE TABLE decision (
    pipeline VARCHAR(255) NOT NULL,
    number INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL,
    subject JSON NOT NULL,
    reason TEXT,
    "by" TEXT,
    os_user TEXT NOT NULL,
    at VARCHAR(32) NOT NULL,
    previous VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    PRIMARY KEY (pipeline, number)
);

CREATE TABLE file_manifest (
    pipeline VARCHAR(255) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    version INTEGER NOT NULL,
    id VARCHAR(32) NOT NULL,
    batch VARCHAR(255) NOT NULL,
    model VARCHAR(255),
    status VARCHAR(16) NOT NULL,
    size BIGINT NOT NULL,
    mtime VARCHAR(32) NOT NULL,
    sighted_at VARCHAR(32) NOT NULL,
    sha256 VARCHAR(64),
    raw TEXT,
    read BIGINT,
    valid BIGINT,
    rejected BIGINT,
    loaded BIGINT,
    reason TEXT,
    run_id VARCHAR(255),
    token BIGINT NOT NULL,
    at VARCHAR(32) NOT NULL,
    released TEXT,
    released_at VARCHAR(32),
    first_seen VARCHAR(32),
    changes BOOLEAN,
    PRIMARY KEY (pipeline, path, version),
    UNIQUE (id)
);

CREATE INDEX file_manifest_by_batch ON file_manifest (pipeline, batch);

CREATE INDEX file_manifest_by_released ON file_manifest (pipeline, released);

CREATE INDEX file_manifest_by_sha256 ON file_manifest (sha256);

CREATE INDEX file_manifest_by_status ON file_manifest (pipeline, status);

CREATE TABLE ingestkit_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT ingestkit_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE lease (
    pipeline VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    owner JSON,
    token BIGINT NOT NULL,
    command TEXT,
    since VARCHAR(32),
    beat VARCHAR(32),
    expires VARCHAR(32),
    wanted_at VARCHAR(32),
    PRIMARY KEY (pipeline, model)
);

CREATE TABLE pipeline (
    pipeline VARCHAR(255) NOT NULL,
    state_id VARCHAR(255) NOT NULL,
    token_counter BIGINT NOT NULL,
    paused_at VARCHAR(32),
    paused_by TEXT,
    paused_reason TEXT,
    held_at VARCHAR(32),
    held_reason TEXT,
    floors JSON NOT NULL,
    pins JSON NOT NULL,
    rebuild JSON,
    moved_at VARCHAR(32),
    windows_from VARCHAR(32),
    floor_ends JSON,
    runs_shown VARCHAR(64),
    PRIMARY KEY (pipeline)
);

CREATE TABLE pipeline_run (
    run_id VARCHAR(255) NOT NULL,
    invocation VARCHAR(255) NOT NULL,
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255),
    attempt INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL,
    models JSON NOT NULL,
    window_start VARCHAR(32),
    window_end VARCHAR(32),
    window_seconds BIGINT,
    target_date VARCHAR(10),
    status VARCHAR(24) NOT NULL,
    verdict VARCHAR(24),
    retry INTEGER NOT NULL,
    started_at VARCHAR(32) NOT NULL,
    ended_at VARCHAR(32),
    seconds FLOAT,
    duration VARCHAR(32),
    phases_completed JSON NOT NULL,
    phases_skipped JSON NOT NULL,
    phases_failed JSON NOT NULL,
    phases_pending JSON NOT NULL,
    config JSON NOT NULL,
    config_hash VARCHAR(64) NOT NULL,
    counts JSON NOT NULL,
    error TEXT,
    exit_code INTEGER,
    owner TEXT,
    last_command VARCHAR(32) NOT NULL,
    touched_at VARCHAR(32) NOT NULL,
    token BIGINT NOT NULL,
    number BIGINT,
    PRIMARY KEY (run_id)
);

CREATE INDEX pipeline_run_by_batch ON pipeline_run (pipeline, batch);

CREATE INDEX pipeline_run_by_number ON pipeline_run (pipeline, number);

CREATE INDEX pipeline_run_by_start ON pipeline_run (pipeline, started_at);

CREATE INDEX pipeline_run_by_status ON pipeline_run (pipeline, status);

CREATE TABLE pipeline_stage (
    run_id VARCHAR(255) NOT NULL,
    stage VARCHAR(16) NOT NULL,
    model VARCHAR(255) NOT NULL,
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255),
    status VARCHAR(16) NOT NULL,
    retry INTEGER NOT NULL,
    started_at VARCHAR(32),
    ended_at VARCHAR(32),
    expected_seconds FLOAT,
    seconds FLOAT,
    error TEXT,
    details JSON,
    sidecar JSON,
    sidecar_path TEXT,
    settings VARCHAR(64),
    token BIGINT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (run_id, stage, model)
);

CREATE INDEX pipeline_stage_by_model ON pipeline_stage (pipeline, stage, model);

CREATE TABLE quarantine (
    run_id VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    file_id VARCHAR(32) NOT NULL,
    "column" VARCHAR(255) NOT NULL,
    code VARCHAR(64) NOT NULL,
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    count BIGINT NOT NULL,
    samples JSON NOT NULL,
    status VARCHAR(16) NOT NULL,
    token BIGINT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (run_id, model, file_id, "column", code)
);

CREATE INDEX quarantine_by_batch ON quarantine (pipeline, batch, model);

CREATE TABLE run_model (
    run_id VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255),
    open_key VARCHAR(512),
    redo BOOLEAN NOT NULL,
    generation INTEGER,
    digest VARCHAR(64),
    settings VARCHAR(64),
    mode VARCHAR(16),
    status VARCHAR(24) NOT NULL,
    token BIGINT NOT NULL,
    PRIMARY KEY (run_id, model),
    UNIQUE (open_key)
);

CREATE INDEX run_model_by_batch ON run_model (pipeline, batch, model);

CREATE TABLE schema_drift (
    run_id VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    file_id VARCHAR(32) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    "column" VARCHAR(255) NOT NULL,
    pipeline VARCHAR(255) NOT NULL,
    batch VARCHAR(255) NOT NULL,
    expected TEXT,
    found TEXT,
    action VARCHAR(16) NOT NULL,
    token BIGINT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (run_id, model, file_id, kind, "column")
);

CREATE TABLE stage_total (
    pipeline VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    stage VARCHAR(16) NOT NULL,
    since VARCHAR(32) NOT NULL,
    at VARCHAR(32) NOT NULL,
    done BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    interrupted BIGINT NOT NULL,
    retries BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    seconds FLOAT NOT NULL,
    rows_read BIGINT NOT NULL,
    rows_valid BIGINT NOT NULL,
    rows_rejected BIGINT NOT NULL,
    rows_loaded BIGINT NOT NULL,
    last JSON,
    PRIMARY KEY (pipeline, model, stage)
);

CREATE TABLE sync_row (
    pipeline VARCHAR(255) NOT NULL,
    model VARCHAR(255) NOT NULL,
    target VARCHAR(255) NOT NULL,
    "key" VARCHAR(512) NOT NULL,
    run_id VARCHAR(255) NOT NULL,
    batch VARCHAR(255),
    hash VARCHAR(64),
    status VARCHAR(16) NOT NULL,
    target_id VARCHAR(255),
    code VARCHAR(128),
    message TEXT,
    tries INTEGER NOT NULL,
    token BIGINT NOT NULL,
    at VARCHAR(32) NOT NULL,
    PRIMARY KEY (pipeline, model, target, "key")
);

CREATE INDEX sync_row_by_status ON sync_row (pipeline, status);

INSERT INTO ingestkit_version (version_num) VALUES ('0008');
