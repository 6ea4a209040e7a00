-- The newest batch loaded of each model, and how many hours ago that was, oldest first; only those older than :older.
-- The newest is the one that was begun, or stepped over, last: an older one that was done again is none.
-- :pipeline text
-- :older instant 0s
SELECT pipeline, model, batch, at AS loaded_at, round(CAST(extract(epoch FROM :now - at) / 3600 AS NUMERIC), 1) AS age_hours
FROM (
    SELECT done.pipeline, done.model, done.batch, done.at, row_number() OVER (
        PARTITION BY done.pipeline, done.model ORDER BY taken.first IS NULL, taken.first DESC, done.at DESC, done.batch DESC
    ) AS place
    FROM completion AS done
    LEFT JOIN (
        SELECT pipeline, batch, min(at) AS first
        FROM (
            SELECT pipeline, batch, started_at AS at FROM pipeline_run WHERE kind IN ('run', 'stage')
            UNION ALL
            SELECT pipeline, subject ->> 'batch', at FROM decision WHERE kind = 'skip'
        ) AS begun
        GROUP BY pipeline, batch
    ) AS taken ON taken.pipeline = done.pipeline AND taken.batch = done.batch
    WHERE done.status = 'done' AND (:pipeline IS NULL OR done.pipeline = :pipeline)
) AS done
WHERE place = 1 AND at <= :older
ORDER BY at, pipeline, model
