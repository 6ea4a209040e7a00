-- The newest batch loaded of each model, and how many hours ago that was, oldest first; only those older than :older.
-- :pipeline text
-- :older instant 0s
SELECT pipeline, model, batch, at AS loaded_at, round(CAST(extract(epoch FROM :now - at) / 3600 AS NUMERIC), 1) AS age_hours
FROM (
    SELECT pipeline, model, batch, at, row_number() OVER (PARTITION BY pipeline, model ORDER BY at DESC, batch DESC) AS place
    FROM completion
    WHERE status = 'done' AND (:pipeline IS NULL OR pipeline = :pipeline)
) AS done
WHERE place = 1 AND at <= :older
ORDER BY at, pipeline, model
