"""A large delivery of people, shaped as OpenData's: 14 columns, accents, quoted commas, gaps, one bad row in 1,000."""

from pathlib import Path

import duckdb

PEOPLE = """
COPY (
    SELECT
        (242976940000000000 + i)::VARCHAR AS vid__v,
        ['José', 'Anna', 'Łukasz', 'Zoë', 'Ian', 'Mary Ann'][1 + i % 6] AS first_name__v,
        ['Müller', 'García, Jr.', 'Åström', 'O''Neill', 'Smith', 'Nguyễn'][1 + i // 6 % 6] || i % 9973 AS last_name__v,
        ['P', 'N', 'S'][1 + i % 3] AS hcp_type__v,
        ['A', 'I'][1 + i % 2] AS hcp_status__v,
        ['CD', 'NA', 'IM', 'FM', NULL][1 + i % 5] AS specialty_1__v,
        lpad(((i * 7919) % 10000000000)::VARCHAR, 10, '0') AS npi_num__v,
        ['US', 'DE', 'FR', 'CA'][1 + i % 4] AS primary_country__v,
        CASE WHEN i % 1000 = 500 THEN 'unknown' WHEN i % 11 > 0 THEN (1930 + i % 70)::VARCHAR END AS birth_year__v,
        'VALID' AS record_state__v,
        CASE WHEN i % 1000 = 0 THEN (142976940000000000 + i)::VARCHAR END AS record_merged_vid__v,
        CASE i % 3 WHEN 0 THEN 'true' WHEN 1 THEN 'false' END AS data_privacy_opt_out__v,
        strftime(TIMESTAMP '2016-11-17' + to_seconds(i), '%Y-%m-%dT%H:%M:%S.000-08:00') AS created_date__v,
        strftime(TIMESTAMP '2025-01-01' + to_seconds(i * 7), '%Y-%m-%dT%H:%M:%S.000Z') AS modified_date__v
    FROM range({rows}) AS numbers(i)
) TO '{path}' (FORMAT csv, HEADER)
"""


def deliver_people(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as db:
        db.execute(PEOPLE.format(rows=rows, path=path))
