-- How many phases and runs that were begun again ended well in the end; so is a run whose batch the attempt before failed at.
-- :pipeline text
-- :since instant 30d
SELECT pipeline, what, count(*) AS retried,
    count(*) FILTER (WHERE status IN ('SUCCESS', 'SUCCESS_WITH_REJECTS', 'SKIPPED')) AS succeeded,
    count(*) FILTER (WHERE status IN ('FAILED', 'INTERRUPTED')) AS failed,
    round(100.0 * count(*) FILTER (WHERE status IN ('SUCCESS', 'SUCCESS_WITH_REJECTS', 'SKIPPED')) / count(*), 1)
        AS success_pct
FROM (
    SELECT run.pipeline, 'run' AS what, run.status, run.ended_at
    FROM pipeline_run AS run
    WHERE run.status IN ('SUCCESS', 'SUCCESS_WITH_REJECTS', 'FAILED') AND (run.retry > 0 OR EXISTS (
        SELECT 1
        FROM pipeline_run AS before
        JOIN run_model AS theirs ON theirs.run_id = before.run_id
        JOIN run_model AS ours ON ours.run_id = run.run_id AND ours.model = theirs.model
        WHERE before.pipeline = run.pipeline AND before.batch = run.batch AND before.attempt = run.attempt - 1
            AND before.status IN ('FAILED', 'SUPERSEDED')
    ))
    UNION ALL
    SELECT pipeline, stage AS what, status, ended_at
    FROM pipeline_stage
    WHERE retry > 0 AND status IN ('SUCCESS', 'SKIPPED', 'FAILED', 'INTERRUPTED')
) AS again
WHERE ended_at >= :since AND (:pipeline IS NULL OR pipeline = :pipeline)
GROUP BY pipeline, what
ORDER BY pipeline, what
