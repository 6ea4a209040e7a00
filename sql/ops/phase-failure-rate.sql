-- How many phases failed, were interrupted or had to be begun again of those that ended, by pipeline and phase, most first.
-- :pipeline text
-- :since instant 30d
SELECT pipeline, stage AS phase, count(*) AS phases,
    count(*) FILTER (WHERE status = 'FAILED') AS failed,
    count(*) FILTER (WHERE status = 'INTERRUPTED') AS interrupted,
    count(*) FILTER (WHERE status IN ('SUCCESS', 'SKIPPED') AND retry > 0) AS begun_again,
    round(100.0 * count(*) FILTER (WHERE status IN ('FAILED', 'INTERRUPTED') OR retry > 0) / count(*), 1) AS failure_pct
FROM pipeline_stage
WHERE (status IN ('SUCCESS', 'FAILED', 'INTERRUPTED') OR status = 'SKIPPED' AND retry > 0) AND ended_at >= :since
    AND (:pipeline IS NULL OR pipeline = :pipeline)
GROUP BY pipeline, stage
ORDER BY failure_pct DESC, pipeline, stage
