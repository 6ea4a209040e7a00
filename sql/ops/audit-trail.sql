-- What people decided, who and why, newest first; a link is whole where it carries the hash of the one before it.
-- :pipeline text
-- :since instant 365d
SELECT pipeline, number, at, kind, "by", os_user, reason, subject, link, hash
FROM (
    SELECT pipeline, number, at, kind, "by", os_user, reason, CAST(subject AS TEXT) AS subject, hash,
        CASE
            WHEN lag(hash) OVER (PARTITION BY pipeline ORDER BY number) = previous THEN 'whole'
            WHEN number = 1 AND previous = '0000000000000000000000000000000000000000000000000000000000000000' THEN 'whole'
            ELSE 'broken'
        END AS link
    FROM decision
) AS linked
WHERE at >= :since AND (:pipeline IS NULL OR pipeline = :pipeline)
ORDER BY at DESC, pipeline, number DESC
