-- How many phases failed or were interrupted of those that ended, by pipeline and phase, most first.
-- :pipeline text
-- :since instant 30d
SELECT pipeline, stage AS phase, count(*) AS phases,
    count(*) FILTER (WHERE status = 'FAILED') AS failed,
    count(*) FILTER (WHERE status = 'INTERRUPTED') AS interrupted,
    round(100.0 * count(*) FILTER (WHERE status <> 'SUCCESS') / count(*), 1) AS failure_pct
FROM pipeline_stage
WHERE status IN ('SUCCESS', 'FAILED', 'INTERRUPTED') AND ended_at >= :since
    AND (:pipeline IS NULL OR pipeline = :pipeline)
GROUP BY pipeline, stage
ORDER BY failure_pct DESC, pipeline, stage
