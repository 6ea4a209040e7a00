"""An archive of Direct Data made into Parquet, beside what its users have and hardly less work; and a small one."""

import json
import shutil
import sys
from pathlib import Path

import duckdb
import pytest
import yaml

from tests.benchmarks.ledger import empty_project
from tests.benchmarks.measure import ROOT, Program, cost, interleaved, ratio, report, script
from tests.doubles.direct_data import Archive, Extract, packed

TIMES = 3
OBJECTS = 8
OURS, THEIRS, LEAST = "ingestkit validate", "accelerator's way", "gzip, tar and DuckDB"
PEER = ROOT / "bench" / "accelerator" / "bin" / "python"
COLUMNS = {
    "id": "ID",
    "modified_date__v": "DateTime",
    "name__v": "String",
    "status__v": "Picklist",
    "created_by__v": "Relationship",
    "created_date__v": "DateTime",
    "active__c": "Boolean",
    "code__c": "String",
    "description__c": "LongText",
    "launch_date__c": "Date",
    "strength__c": "Number",
    "amount__c": "Number",
    "country__c": "Picklist",
    "owner__c": "Relationship",
    "note__c": "String",
    "due__c": "DateTime",
}
ROWS = """
COPY (
    SELECT printf('V%014d', i) AS id,
        strftime(TIMESTAMP '2026-01-01' + INTERVAL (i % 900000) SECOND, '%Y-%m-%dT%H:%M:%S.000Z') AS modified_date__v,
        'Product number ' || i AS name__v, if(i % 3 = 0, 'active__v', 'inactive__v') AS status__v,
        printf('%07d', i % 5000) AS created_by__v,
        strftime(TIMESTAMP '2020-01-01' + INTERVAL (i % 90000000) SECOND, '%Y-%m-%dT%H:%M:%S.000Z') AS created_date__v,
        if(i % 2 = 0, 'true', 'false') AS active__c, printf('%05d', i % 99999) AS code__c,
        if(i % 5 = 0, '', 'A description, with a comma, of ' || i) AS description__c,
        strftime(DATE '2000-01-01' + (i % 9000)::INT, '%Y-%m-%d') AS launch_date__c,
        if(i % 7 = 0, '', printf('%d.%d', i % 1000, i % 10)) AS strength__c, (i * 37)::VARCHAR AS amount__c,
        'country_' || i % 200 AS country__c, printf('%07d', i % 7000) AS owner__c, 'note ' || hash(i) AS note__c,
        strftime(TIMESTAMP '2026-06-01' + INTERVAL (i % 800000) SECOND, '%Y-%m-%dT%H:%M:%S.000Z') AS due__c
    FROM range({rows}) AS r(i)
) TO '{path}' (FORMAT csv, HEADER)
"""
# As the published code does it: all of the archive in memory, each file by pandas in pieces of 100,000 rows whose
# columns are made into the types of metadata one after another.
ACCELERATOR = """
import io, sys, tarfile, pandas as pd, pyarrow as pa, pyarrow.parquet as pq
source, target = sys.argv[1:]
with tarfile.open(fileobj=io.BytesIO(open(source, 'rb').read()), mode='r:gz') as archive:
    members = [one for one in archive.getmembers() if one.isfile()]
    metadata = pd.read_csv(archive.extractfile('Metadata/metadata.csv'))
    for member in members:
        if not member.name.startswith('Object/'):
            continue
        extract = member.name.removesuffix('.csv').replace('/', '.')
        types = metadata[metadata.extract == extract].set_index('column_name').type.to_dict()
        writer = None
        for chunk in pd.read_csv(io.BytesIO(archive.extractfile(member).read()), chunksize=100_000, low_memory=False):
            for column in chunk.columns:
                match types.get(column):
                    case 'DateTime':
                        chunk[column] = pd.to_datetime(chunk[column], errors='coerce', utc=True)
                    case 'Date':
                        chunk[column] = pd.to_datetime(chunk[column], errors='coerce').dt.date
                    case 'Boolean':
                        chunk[column] = chunk[column].astype('boolean')
                    case 'Number':
                        chunk[column] = pd.to_numeric(chunk[column], errors='coerce')
                    case _:
                        chunk[column] = chunk[column].astype(str)
            table = pa.Table.from_pandas(chunk, preserve_index=False)
            writer = writer or pq.ParquetWriter(f'{target}/{extract}.parquet', table.schema)
            writer.write_table(table.cast(writer.schema))
        writer.close()
"""
BARE = """
import duckdb, pathlib, subprocess, sys
source, target = sys.argv[1:]
subprocess.run(f"gzip -dc {source} | tar -x -C {target}", shell=True, check=True)
duckdb.execute("SET memory_limit = '1GB'")
for path in pathlib.Path(target).glob('Object/*.csv'):
    duckdb.execute(f"COPY (FROM read_csv('{path}')) TO '{path.with_suffix('.parquet')}' (FORMAT parquet)")
"""
PIPELINE = {
    "pipeline": "opendata",
    "source": {
        "type": "files",
        "connection": "opendata_drop",
        "batches": {"files": r"\d+-(?P<batch>\d{8}-\d{4}-[FN])\.tar\.gz"},
        "settle": {"quiet": "0s"},
    },
    "tables": {},
}


def project(folder: Path) -> Path:
    drop = empty_project(folder)
    (folder / "config/pipelines/opendata.yaml").write_text(yaml.safe_dump(PIPELINE))
    for gate in folder.glob("sql/gate/*/*.sql"):
        gate.unlink()
    return drop


@pytest.mark.timeout(7200)
def test_an_archive_beside_the_accelerators_way(tmp_path: Path, rows: int) -> None:
    """Some 1 GB when it is unpacked; with `--quick` a tenth of it."""
    if not PEER.is_file():
        pytest.skip("the accelerator's environment is not there: make bench makes it")
    drop = project(tmp_path)
    members: list[tuple[str, str | bytes]] = []
    names = [f"object_{number}__c" for number in range(OBJECTS)]
    each = rows * 5 // 4 // OBJECTS
    described = Archive([Extract(f"Object.{name}", COLUMNS, [{}] * each) for name in names]).members()
    members += [(name, text) for name, text in described if not name.startswith("Object/")]
    csv = tmp_path / "object.csv"
    duckdb.execute(ROWS.format(rows=each, path=csv))
    content = csv.read_bytes()
    size = len(content) * OBJECTS
    members += [(f"Object/{name}.csv", content) for name in names]
    archive = drop / "100123-20260115-0500-F.tar.gz"
    archive.write_bytes(packed(members))
    del content, members
    unpacked, theirs = tmp_path / "unpacked", tmp_path / "theirs"

    def extracted() -> None:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        cost(Program("extract", [script("ingestkit"), "--quiet", "extract", "opendata"], tmp_path))

    def emptied(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    programs = [
        Program(OURS, [script("ingestkit"), "--quiet", "validate", "opendata"], tmp_path, extracted),
        Program(LEAST, [sys.executable, "-c", BARE, str(archive), str(unpacked)], tmp_path, lambda: emptied(unpacked)),
        Program(THEIRS, [str(PEER), "-c", ACCELERATOR, str(archive), str(theirs)], tmp_path, lambda: emptied(theirs)),
    ]
    taken = interleaved(programs, TIMES)
    over, under = ratio(taken, THEIRS, OURS), ratio(taken, OURS, LEAST)
    said = [
        f"{OBJECTS} objects of {size / 2**20:,.0f} MiB together, packed {archive.stat().st_size / 2**20:,.0f} MiB",
        f"{THEIRS} / {OURS}: {over:.2f}×, asked: at least 3×",
        f"{OURS} / {LEAST}: {under:.2f}×, asked: at most 1.3×; memory asked: under 1,024 MiB",
    ]
    report("direct_data", taken, {"bytes": size, "over": over, "under": under}, said)


@pytest.mark.timeout(600)
def test_an_incremental_of_twenty_small_objects(tmp_path: Path) -> None:
    """End to end into DuckDB."""
    drop = project(tmp_path)
    row = {"id": "1", "name__v": "a", "active__c": "true", "strength__c": "2.5", "code__c": "00123"}
    names = [f"Object.object_{number}__c" for number in range(20)]
    types = dict.fromkeys(names, COLUMNS)
    full = Archive([Extract(name, COLUMNS, [{**row, "id": str(number)} for number in range(100)]) for name in names])
    (drop / "100123-20260115-0500-F.tar.gz").write_bytes(full.made())
    run = Program("run of twenty objects", [script("ingestkit"), "--quiet", "run", "opendata"], tmp_path)
    first = interleaved([run], 1)
    times = iter(range(15, 59))

    def deliver() -> None:
        some = [Extract(name, COLUMNS, [{**row, "id": str(at)} for at in (1, 2, 1000)], [("3",)]) for name in names]
        path = drop / f"100123-20260115-05{next(times)}-N.tar.gz"
        path.write_bytes(Archive(some, full=False, everything=types).made())

    taken = interleaved([Program(run.name, run.command, tmp_path, deliver)], 5)
    said = [f"the full one: {json.dumps(round(first[run.name][0].seconds, 2))} s; asked: under 2 s of our own time"]
    report("direct_data_small", taken, {}, said)
