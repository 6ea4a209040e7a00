-- How many runs of each pipeline ended well; those that found nothing or were taken over count for nothing.
-- :pipeline text
-- :since instant 30d
SELECT pipeline, count(*) AS runs,
    count(*) FILTER (WHERE status = 'SUCCESS') AS succeeded,
    count(*) FILTER (WHERE status = 'SUCCESS_WITH_REJECTS') AS with_rejects,
    count(*) FILTER (WHERE status = 'FAILED') AS failed,
    round(100.0 * count(*) FILTER (WHERE status <> 'FAILED') / count(*), 1) AS success_pct
FROM pipeline_run
WHERE status IN ('SUCCESS', 'SUCCESS_WITH_REJECTS', 'FAILED') AND ended_at >= :since
    AND (:pipeline IS NULL OR pipeline = :pipeline)
GROUP BY pipeline
ORDER BY success_pct, pipeline
