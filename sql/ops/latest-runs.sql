-- The latest run of each pipeline.
-- :pipeline text
SELECT pipeline, run_id, batch, kind, status, verdict, started_at, ended_at, seconds, error
FROM (
    SELECT pipeline_run.*, row_number() OVER (PARTITION BY pipeline ORDER BY number DESC) AS place
    FROM pipeline_run
    WHERE :pipeline IS NULL OR pipeline = :pipeline
) AS run
WHERE place = 1
ORDER BY pipeline
