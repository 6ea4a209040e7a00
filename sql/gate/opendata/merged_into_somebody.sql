-- models: hcp
-- Whoever was merged was merged into somebody else, who is named.
SELECT vid__v
FROM hcp
WHERE record_state__v = 'MERGED_INTO' AND (record_merged_vid__v IS NULL OR record_merged_vid__v = vid__v)
