-- Models whose records, valid rows, staged rows and rows in the target do not add up, with what is missing where.
-- :pipeline text
-- :since instant 30d
SELECT pipeline, batch, model, run_id, ended_at, records, rejected, valid, staged, superseded, filtered, deletes, loaded,
    records - rejected - valid AS unread, valid - staged AS unstaged,
    staged - superseded - filtered - deletes - loaded AS unloaded
FROM (
    SELECT validate.pipeline, validate.batch, validate.model, validate.run_id,
        coalesce(load.ended_at, validate.ended_at) AS ended_at,
        CAST(validate.sidecar -> 'counts' ->> 'records' AS BIGINT) AS records,
        CAST(validate.sidecar -> 'counts' ->> 'rejected' AS BIGINT) AS rejected,
        CAST(validate.sidecar -> 'counts' ->> 'valid' AS BIGINT) AS valid,
        CAST(load.sidecar -> 'counts' ->> 'staged' AS BIGINT) AS staged,
        coalesce(CAST(load.sidecar -> 'counts' ->> 'superseded' AS BIGINT), 0) AS superseded,
        coalesce(CAST(load.sidecar -> 'counts' ->> 'filtered' AS BIGINT), 0) AS filtered,
        coalesce(CAST(load.sidecar -> 'counts' ->> 'deletes' AS BIGINT), 0) AS deletes,
        CAST(load.sidecar -> 'counts' ->> 'loaded' AS BIGINT) AS loaded
    FROM pipeline_stage AS validate
    -- What load said before validate was done again is of other rows.
    LEFT JOIN pipeline_stage AS load ON load.run_id = validate.run_id AND load.model = validate.model
        AND load.stage = 'load' AND (
            CAST(load.sidecar ->> 'token' AS BIGINT), CAST(load.sidecar ->> 'sequence' AS BIGINT)
        ) > (
            CAST(validate.sidecar ->> 'token' AS BIGINT), CAST(validate.sidecar ->> 'sequence' AS BIGINT)
        )
    WHERE validate.stage = 'validate' AND validate.sidecar IS NOT NULL
        AND (:pipeline IS NULL OR validate.pipeline = :pipeline)
) AS counted
WHERE ended_at >= :since AND (
    records <> rejected + valid OR valid <> staged OR staged <> superseded + filtered + deletes + loaded
)
ORDER BY ended_at DESC, run_id, model
