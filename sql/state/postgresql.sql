-- The state database of version 0008, generated from states/tables.py; a test keeps them in step.

CREATE TABLE alert (
    pipeline VARCHAR COLLATE "C" NOT NULL,
    incident VARCHAR COLLATE "C" NOT NULL,
    kind VARCHAR COLLATE "C" NOT NULL,
    status VARCHAR COLLATE "C" NOT NULL,
    count INTEGER NOT NULL,
    run_id VARCHAR COLLATE "C",
    message VARCHAR COLLATE "C" NOT NULL,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    sent_at TIMESTAMP WITH TIME ZONE,
    recovered_at TIMESTAMP WITH TIME ZONE,
    token BIGINT NOT NULL,
    PRIMARY KEY (pipeline, incident)
);

CREATE TABLE artifact (
    path VARCHAR COLLATE "C" NOT NULL,
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    file_id VARCHAR COLLATE "C",
    kind VARCHAR COLLATE "C" NOT NULL,
    sha256 VARCHAR COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL,
    rows BIGINT,
    settings VARCHAR COLLATE "C" NOT NULL,
    run_id VARCHAR COLLATE "C" NOT NULL,
    token BIGINT NOT NULL,
    status VARCHAR COLLATE "C" NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (path)
);

CREATE INDEX artifact_being_removed ON artifact (pipeline) WHERE status = 'removing';

CREATE INDEX artifact_by_batch ON artifact (pipeline, batch, model);

CREATE INDEX artifact_by_file ON artifact (file_id);

CREATE TABLE completion (
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    status VARCHAR COLLATE "C" NOT NULL,
    mode VARCHAR COLLATE "C",
    generation INTEGER NOT NULL,
    digest VARCHAR COLLATE "C",
    settings VARCHAR COLLATE "C",
    run_id VARCHAR COLLATE "C" NOT NULL,
    counts JSON NOT NULL,
    token BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    window_end TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (pipeline, batch, model)
);

CREATE TABLE decision (
    pipeline VARCHAR COLLATE "C" NOT NULL,
    number INTEGER NOT NULL,
    kind VARCHAR COLLATE "C" NOT NULL,
    subject JSON NOT NULL,
    reason VARCHAR COLLATE "C",
    by VARCHAR COLLATE "C",
    os_user VARCHAR COLLATE "C" NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    previous VARCHAR COLLATE "C" NOT NULL,
    hash VARCHAR COLLATE "C" NOT NULL,
    PRIMARY KEY (pipeline, number)
);

CREATE TABLE file_manifest (
    pipeline VARCHAR COLLATE "C" NOT NULL,
    path VARCHAR COLLATE "C" NOT NULL,
    version INTEGER NOT NULL,
    id VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C",
    status VARCHAR COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    mtime TIMESTAMP WITH TIME ZONE NOT NULL,
    sighted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    sha256 VARCHAR COLLATE "C",
    raw VARCHAR COLLATE "C",
    read BIGINT,
    valid BIGINT,
    rejected BIGINT,
    loaded BIGINT,
    reason VARCHAR COLLATE "C",
    run_id VARCHAR COLLATE "C",
    token BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    released VARCHAR COLLATE "C",
    released_at TIMESTAMP WITH TIME ZONE,
    first_seen TIMESTAMP WITH TIME ZONE,
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
    pipeline VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    owner JSON,
    token BIGINT NOT NULL,
    command VARCHAR COLLATE "C",
    since TIMESTAMP WITH TIME ZONE,
    beat TIMESTAMP WITH TIME ZONE,
    expires TIMESTAMP WITH TIME ZONE,
    wanted_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (pipeline, model)
);

CREATE TABLE pipeline (
    pipeline VARCHAR COLLATE "C" NOT NULL,
    state_id VARCHAR COLLATE "C" NOT NULL,
    token_counter BIGINT NOT NULL,
    paused_at TIMESTAMP WITH TIME ZONE,
    paused_by VARCHAR COLLATE "C",
    paused_reason VARCHAR COLLATE "C",
    held_at TIMESTAMP WITH TIME ZONE,
    held_reason VARCHAR COLLATE "C",
    floors JSON NOT NULL,
    pins JSON NOT NULL,
    rebuild JSON,
    moved_at TIMESTAMP WITH TIME ZONE,
    windows_from TIMESTAMP WITH TIME ZONE,
    floor_ends JSON,
    runs_shown VARCHAR COLLATE "C",
    PRIMARY KEY (pipeline)
);

CREATE TABLE pipeline_run (
    run_id VARCHAR COLLATE "C" NOT NULL,
    invocation VARCHAR COLLATE "C" NOT NULL,
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C",
    attempt INTEGER NOT NULL,
    kind VARCHAR COLLATE "C" NOT NULL,
    models JSON NOT NULL,
    window_start TIMESTAMP WITH TIME ZONE,
    window_end TIMESTAMP WITH TIME ZONE,
    window_seconds BIGINT,
    target_date VARCHAR COLLATE "C",
    status VARCHAR COLLATE "C" NOT NULL,
    verdict VARCHAR COLLATE "C",
    retry INTEGER NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    seconds FLOAT,
    duration VARCHAR COLLATE "C",
    phases_completed JSON NOT NULL,
    phases_skipped JSON NOT NULL,
    phases_failed JSON NOT NULL,
    phases_pending JSON NOT NULL,
    config JSON NOT NULL,
    config_hash VARCHAR COLLATE "C" NOT NULL,
    counts JSON NOT NULL,
    error VARCHAR COLLATE "C",
    exit_code INTEGER,
    owner VARCHAR COLLATE "C",
    last_command VARCHAR COLLATE "C" NOT NULL,
    touched_at TIMESTAMP WITH TIME ZONE NOT NULL,
    token BIGINT NOT NULL,
    number BIGINT,
    PRIMARY KEY (run_id)
);

CREATE INDEX pipeline_run_by_batch ON pipeline_run (pipeline, batch);

CREATE INDEX pipeline_run_by_number ON pipeline_run (pipeline, number);

CREATE INDEX pipeline_run_by_start ON pipeline_run (pipeline, started_at);

CREATE INDEX pipeline_run_by_status ON pipeline_run (pipeline, status);

CREATE TABLE pipeline_stage (
    run_id VARCHAR COLLATE "C" NOT NULL,
    stage VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C",
    status VARCHAR COLLATE "C" NOT NULL,
    retry INTEGER NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    expected_seconds FLOAT,
    seconds FLOAT,
    error VARCHAR COLLATE "C",
    details JSON,
    sidecar JSON,
    sidecar_path VARCHAR COLLATE "C",
    settings VARCHAR COLLATE "C",
    token BIGINT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (run_id, stage, model)
);

CREATE INDEX pipeline_stage_by_model ON pipeline_stage (pipeline, stage, model);

CREATE TABLE quarantine (
    run_id VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    file_id VARCHAR COLLATE "C" NOT NULL,
    "column" VARCHAR COLLATE "C" NOT NULL,
    code VARCHAR COLLATE "C" NOT NULL,
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C" NOT NULL,
    path VARCHAR COLLATE "C" NOT NULL,
    count BIGINT NOT NULL,
    samples JSON NOT NULL,
    status VARCHAR COLLATE "C" NOT NULL,
    token BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (run_id, model, file_id, "column", code)
);

CREATE INDEX quarantine_by_batch ON quarantine (pipeline, batch, model);

CREATE TABLE run_model (
    run_id VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C",
    open_key VARCHAR COLLATE "C",
    redo BOOLEAN NOT NULL,
    generation INTEGER,
    digest VARCHAR COLLATE "C",
    settings VARCHAR COLLATE "C",
    mode VARCHAR COLLATE "C",
    status VARCHAR COLLATE "C" NOT NULL,
    token BIGINT NOT NULL,
    PRIMARY KEY (run_id, model),
    UNIQUE (open_key)
);

CREATE INDEX run_model_by_batch ON run_model (pipeline, batch, model);

CREATE TABLE schema_drift (
    run_id VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    file_id VARCHAR COLLATE "C" NOT NULL,
    kind VARCHAR COLLATE "C" NOT NULL,
    "column" VARCHAR COLLATE "C" NOT NULL,
    pipeline VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C" NOT NULL,
    expected VARCHAR COLLATE "C",
    found VARCHAR COLLATE "C",
    action VARCHAR COLLATE "C" NOT NULL,
    token BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (run_id, model, file_id, kind, "column")
);

CREATE TABLE stage_total (
    pipeline VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    stage VARCHAR COLLATE "C" NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
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
    pipeline VARCHAR COLLATE "C" NOT NULL,
    model VARCHAR COLLATE "C" NOT NULL,
    target VARCHAR COLLATE "C" NOT NULL,
    key VARCHAR COLLATE "C" NOT NULL,
    run_id VARCHAR COLLATE "C" NOT NULL,
    batch VARCHAR COLLATE "C",
    hash VARCHAR COLLATE "C",
    status VARCHAR COLLATE "C" NOT NULL,
    target_id VARCHAR COLLATE "C",
    code VARCHAR COLLATE "C",
    message VARCHAR COLLATE "C",
    tries INTEGER NOT NULL,
    token BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (pipeline, model, target, key)
);

CREATE INDEX sync_row_by_status ON sync_row (pipeline, status);

INSERT INTO ingestkit_version (version_num) VALUES ('0008');
