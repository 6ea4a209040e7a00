-- Models whose records, valid rows, staged rows and rows in the target do not add up, with what is missing where.
-- :pipeline text
-- :since instant 30d
SELECT pipeline, batch, model, run_id, ended_at, records, rejected, valid, staged, superseded, filtered, deletes, loaded,
    records - rejected - valid AS unread, valid - staged AS unstaged,
    staged - superseded - filtered - deletes - loaded AS unloaded
FROM (
    SELECT validate.pipeline, validate.batch, validate.model, validate.run_id,
        coalesce(load.ended_at, validate.ended_at) AS ended_at,
        json_extract(validate.sidecar, '$.counts.records') AS records,
        json_extract(validate.sidecar, '$.counts.rejected') AS rejected,
        json_extract(validate.sidecar, '$.counts.valid') AS valid,
        json_extract(load.sidecar, '$.counts.staged') AS staged,
        coalesce(json_extract(load.sidecar, '$.counts.superseded'), 0) AS superseded,
        coalesce(json_extract(load.sidecar, '$.counts.filtered'), 0) AS filtered,
        coalesce(json_extract(load.sidecar, '$.counts.deletes'), 0) AS deletes,
        json_extract(load.sidecar, '$.counts.loaded') AS loaded
    FROM pipeline_stage AS validate
    -- What load said before validate was done again is of other rows.
    LEFT JOIN pipeline_stage AS load ON load.run_id = validate.run_id AND load.model = validate.model
        AND load.stage = 'load' AND (
            json_extract(load.sidecar, '$.token'), json_extract(load.sidecar, '$.sequence')
        ) > (
            json_extract(validate.sidecar, '$.token'), json_extract(validate.sidecar, '$.sequence')
        )
    WHERE validate.stage = 'validate' AND validate.sidecar IS NOT NULL
        AND (:pipeline IS NULL OR validate.pipeline = :pipeline)
) AS counted
WHERE ended_at >= :since AND (
    records <> rejected + valid OR valid <> staged OR staged <> superseded + filtered + deletes + loaded
)
ORDER BY ended_at DESC, run_id, model
