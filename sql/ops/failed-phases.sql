-- Which phase of which model failed or was interrupted, and why, or was begun again and ended well, newest first.
-- :pipeline text
-- :since instant 7d
SELECT run.pipeline, run.run_id, run.status AS run, stage.stage AS phase, stage.model, stage.status, stage.retry,
    coalesce(stage.ended_at, run.ended_at) AS ended_at,
    -- Why it was begun again is in the log alone: the phase that ended well has taken its row.
    CASE WHEN stage.status IN ('SUCCESS', 'SKIPPED') THEN NULL ELSE coalesce(stage.error, run.error) END AS why
FROM pipeline_run AS run
LEFT JOIN pipeline_stage AS stage ON stage.run_id = run.run_id
    AND (stage.status IN ('FAILED', 'INTERRUPTED') OR stage.status IN ('SUCCESS', 'SKIPPED') AND stage.retry > 0)
WHERE (stage.stage IS NOT NULL OR run.status = 'FAILED')
    AND coalesce(stage.ended_at, run.ended_at) >= :since
    AND (:pipeline IS NULL OR run.pipeline = :pipeline)
ORDER BY coalesce(stage.ended_at, run.ended_at) DESC, run.run_id, stage.stage, stage.model
