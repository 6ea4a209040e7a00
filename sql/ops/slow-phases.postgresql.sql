-- Phases that took over twice as long as they usually do, or that run so long already; the worst first.
-- :pipeline text
-- :since instant 7d
-- :times number 2
-- :least number 1
SELECT pipeline, run_id, phase, model, status, started_at, expected_seconds, seconds,
    round(CAST(seconds / expected_seconds AS NUMERIC), 1) AS times
FROM (
    SELECT pipeline, run_id, stage AS phase, model, status, started_at, expected_seconds,
        CASE WHEN status = 'RUNNING' THEN extract(epoch FROM :now - started_at) ELSE seconds END AS seconds
    FROM pipeline_stage
    WHERE status NOT IN ('SKIPPED', 'PENDING') AND started_at >= :since AND (:pipeline IS NULL OR pipeline = :pipeline)
) AS stage
WHERE expected_seconds > 0 AND seconds > :times * expected_seconds AND seconds >= :least
ORDER BY seconds / expected_seconds DESC, run_id, phase, model
