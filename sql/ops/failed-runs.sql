-- Runs that failed lately, newest first.
-- :pipeline text
-- :since instant 24h
SELECT pipeline, run_id, batch, attempt, ended_at, exit_code, error
FROM pipeline_run
WHERE status = 'FAILED' AND ended_at >= :since AND (:pipeline IS NULL OR pipeline = :pipeline)
ORDER BY ended_at DESC, run_id
