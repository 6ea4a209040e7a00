-- The drive table in Snowflake, for who looks at runs there: connections with `mirror_runs: true` add to it. Run once, by who may
-- create in the schema; what is read and written there, the role that loads needs no other right for:
--   snow sql -f sql/drive/snowflake.sql -D database=RAW -D schema=PUBLIC -D role=INGESTKIT_WAREHOUSE
-- Rows are only ever added, one for each state of a run that was seen; how a run stands now is in the view.

CREATE TABLE IF NOT EXISTS <% database %>.<% schema %>.INGESTKIT_RUN_EVENT (
    EVENT_ID VARCHAR NOT NULL,
    PIPELINE VARCHAR NOT NULL,
    RUN_ID VARCHAR NOT NULL,
    TOKEN NUMBER(19,0) NOT NULL,
    TOUCHED_AT TIMESTAMP_TZ NOT NULL,
    ADDED_AT TIMESTAMP_TZ NOT NULL,
    MODELS ARRAY NOT NULL,
    RUN VARIANT NOT NULL
) DEFAULT_DDL_COLLATION = '';

CREATE OR REPLACE VIEW <% database %>.<% schema %>.INGESTKIT_RUN AS
SELECT
    PIPELINE,
    RUN_ID,
    RUN:batch::VARCHAR AS BATCH,
    RUN:attempt::NUMBER(19,0) AS ATTEMPT,
    RUN:kind::VARCHAR AS KIND,
    MODELS,
    RUN:status::VARCHAR AS STATUS,
    RUN:verdict::VARCHAR AS VERDICT,
    RUN:retry::NUMBER(19,0) AS RETRY,
    RUN:started_at::TIMESTAMP_TZ AS STARTED_AT,
    RUN:ended_at::TIMESTAMP_TZ AS ENDED_AT,
    RUN:seconds::FLOAT AS SECONDS,
    RUN:phases_completed::ARRAY AS PHASES_COMPLETED,
    RUN:phases_skipped::ARRAY AS PHASES_SKIPPED,
    RUN:phases_failed::ARRAY AS PHASES_FAILED,
    RUN:phases_pending::ARRAY AS PHASES_PENDING,
    RUN:counts AS COUNTS,
    RUN:error::VARCHAR AS ERROR,
    RUN:exit_code::NUMBER(19,0) AS EXIT_CODE,
    RUN:window_start::TIMESTAMP_TZ AS WINDOW_START,
    RUN:window_end::TIMESTAMP_TZ AS WINDOW_END,
    TOUCHED_AT,
    RUN
FROM <% database %>.<% schema %>.INGESTKIT_RUN_EVENT
QUALIFY ROW_NUMBER() OVER (PARTITION BY PIPELINE, RUN_ID ORDER BY TOKEN DESC, TOUCHED_AT DESC, ADDED_AT DESC, EVENT_ID) = 1;

GRANT SELECT, INSERT ON TABLE <% database %>.<% schema %>.INGESTKIT_RUN_EVENT TO ROLE <% role %>;
