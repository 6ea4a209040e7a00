-- The newest batch loaded of each model, and how many hours ago that was, oldest first; only those older than :older.
-- The newest is the one that was taken last for the first time: an older one that was done again is none.
-- :pipeline text
-- :older instant 0s
SELECT pipeline, model, batch, at AS loaded_at, round(CAST(extract(epoch FROM :now - at) / 3600 AS NUMERIC), 1) AS age_hours
FROM (
    SELECT done.pipeline, done.model, done.batch, done.at, row_number() OVER (
        PARTITION BY done.pipeline, done.model ORDER BY coalesce(taken.first, 0) DESC, done.at DESC, done.batch DESC
    ) AS place
    FROM completion AS done
    LEFT JOIN (
        SELECT pipeline, batch, min(number) AS first
        FROM pipeline_run
        WHERE kind IN ('run', 'stage')
        GROUP BY pipeline, batch
    ) AS taken ON taken.pipeline = done.pipeline AND taken.batch = done.batch
    WHERE done.status = 'done' AND (:pipeline IS NULL OR done.pipeline = :pipeline)
) AS done
WHERE place = 1 AND at <= :older
ORDER BY at, pipeline, model
