"""What users would pick instead, each as a program of its own, in the environment `make bench` builds for them."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.benchmarks.measure import ROOT, Program

PEERS = ROOT / "bench" / "peers" / "bin" / "python"

DUCKDB = """
import duckdb, sys
source, target = sys.argv[1:]
duckdb.execute("SET memory_limit = '1GB'")
duckdb.execute(f"COPY (FROM read_csv('{source}', all_varchar = true)) TO '{target}' (FORMAT parquet)")
"""
POLARS = """
import polars, sys
source, target = sys.argv[1:]
polars.scan_csv(source, infer_schema=False).sink_parquet(target)
"""
PANDAS = """
import pandas, pyarrow, pyarrow.parquet, sys
source, target = sys.argv[1:]
writer = None
for chunk in pandas.read_csv(source, dtype=str, chunksize=100_000):
    table = pyarrow.Table.from_pandas(chunk, preserve_index=False)
    writer = writer or pyarrow.parquet.ParquetWriter(target, table.schema)
    writer.write_table(table.cast(writer.schema))
writer.close()
"""
DLT = """
import dlt, pathlib, sys
from dlt.sources.filesystem import filesystem, read_csv, read_csv_duckdb
source, target, path = sys.argv[1:]
folder = pathlib.Path(target)
pipeline = dlt.pipeline(
    "people", destination=dlt.destinations.duckdb(str(folder / "people.duckdb")), dataset_name="landed",
    pipelines_dir=str(folder / "pipelines"),
)
files = filesystem(bucket_url=pathlib.Path(source).parent.as_uri(), file_glob="*.csv")
if path == "arrow":
    print(pipeline.run((files | read_csv_duckdb(use_pyarrow=True)).with_name("hcp"), loader_file_format="parquet"))
else:
    print(pipeline.run((files | read_csv()).with_name("hcp")))
"""
DLT_MERGE = """
import dlt, pathlib, sys
from dlt.sources.filesystem import filesystem, read_csv, read_csv_duckdb
source, target, url, dataset, strategy, first = sys.argv[1:]
pipeline = dlt.pipeline(
    dataset, destination=dlt.destinations.postgres(url), dataset_name=dataset, pipelines_dir=target
)
files = filesystem(bucket_url=pathlib.Path(source).as_uri(), file_glob="*.csv")
if strategy:
    people, written = files | read_csv_duckdb(use_pyarrow=True, all_varchar=True), "csv"
else:
    people, written = files | read_csv(dtype=str, keep_default_na=False), None
merge = {"disposition": "merge", "strategy": strategy} if strategy else "merge"
people = people.with_name("hcp")
people.apply_hints(primary_key="vid__v", write_disposition="append" if first else merge)
print(pipeline.run(people, loader_file_format=written))
"""


def bare_duckdb(source: Path, folder: Path) -> Program:
    """The fastest engine doing nothing but convert: ours runs the same version."""
    command = [sys.executable, "-c", DUCKDB, str(source), str(folder / "duckdb.parquet")]
    return Program("DuckDB: read_csv to Parquet", command, folder)


def converters(source: Path, folder: Path) -> list[Program]:
    """Others that make Parquet of a file, all values as text, and check nothing."""
    return [
        Program(name, [_peers(), "-c", code, str(source), str(folder / "other.parquet")], folder)
        for name, code in (("Polars: scan_csv, sink_parquet", POLARS), ("pandas: chunks of 100,000", PANDAS))
    ]


def dlt(source: Path, folder: Path, path: str) -> Program:
    """dlt from the folder into a DuckDB file, by way of Arrow tables, or by its default, dictionaries."""
    target = folder / f"dlt-{path}"

    def begin() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    return Program(f"dlt: {path} path", [_peers(), "-c", DLT, str(source), str(target), path], folder, begin)


def dlt_merge(source: Path, folder: Path, url: str, strategy: str, *, first: bool = False) -> Program:
    """dlt from a folder into PostgreSQL: by Arrow and COPY with a strategy of merging, or without by its defaults."""
    dataset = f"dlt_{strategy.replace('-', '_') or 'default'}"
    told = [str(source), str(folder / "dlt"), url, dataset, strategy, "first" if first else ""]
    return Program(f"dlt merge: {strategy or 'as it comes'}", [_peers(), "-c", DLT_MERGE, *told], folder)


def _peers() -> str:
    if not PEERS.exists():
        pytest.skip("the programs to compare with are not installed; make bench installs them")
    return str(PEERS)
