"""One row in a hundred changed, from a CSV file to a merged PostgreSQL table, beside dlt doing the same.

The file holds the changed rows alone, or all of them: then those that have not changed are what a merge is to leave.
"""

from pathlib import Path

import duckdb
import pytest

from tests.benchmarks import peers
from tests.benchmarks.delivery import deliver_people
from tests.benchmarks.ledger import empty_project
from tests.benchmarks.measure import Program, cost, interleaved, ratio, report, script
from tests.services import USER, PostgresServer, postgres
from tests.warehouses import LOADER, warehouse_database

TIMES = 3
# The first are the defaults.
STRATEGIES = ("", "delete-insert", "upsert")
SCHEMAS = ("dlt_default", "dlt_delete_insert", "dlt_upsert")
SETTINGS = """
state: {{url: 'sqlite:///state/ingestkit.db'}}
connections:
  opendata_drop: {{type: local, path: config/samples/opendata}}
  lake: {{type: local, path: state/lake}}
  warehouse: {{type: postgresql, host: 127.0.0.1, port: {port}, database: {database}, user: {user}}}
"""
CHANGED = """
COPY (
    SELECT * REPLACE (if(vid__v[-2:] = '37', last_name__v || ' {mark}', last_name__v) AS last_name__v)
    FROM read_csv('{whole}', all_varchar = true) WHERE {wanted}
) TO '{changed}' (FORMAT csv, HEADER)
"""
# A row that breaks its contract is in neither.
DELIVERED = {"changes": "vid__v[-2:] = '37'", "all": "birth_year__v IS DISTINCT FROM 'unknown'"}


@pytest.mark.services
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("delivered", DELIVERED)
def test_one_row_in_a_hundred_merged_beside_dlt(tmp_path: Path, rows: int, delivered: str) -> None:
    drop = empty_project(tmp_path)
    whole, changed = drop / "20260104_180000/HCP.csv", tmp_path / "changed/HCP.csv"
    deliver_people(whole, rows)
    changed.parent.mkdir()
    pipeline = tmp_path / "config/pipelines/opendata.yaml"
    text = pipeline.read_text().replace("load: replace", "load: merge", 1)
    for before, now in (("quiet: 60s", "quiet: 0s"), (", row_delta_pct: 30", "")):
        assert before in text
        text = text.replace(before, now)
    pipeline.write_text(text)
    days = iter(range(5, 29))

    def change(wanted: str, mark: str) -> None:
        """What has changed is another value each time."""
        changed.unlink(missing_ok=True)
        with duckdb.connect() as db:
            db.execute(CHANGED.format(whole=whole, changed=changed, wanted=DELIVERED[wanted], mark=mark))

    def deliver() -> None:
        day = next(days)
        change(delivered, f"the {day}th")
        server.does("CHECKPOINT")
        batch = drop / f"202601{day:02}_180000"
        batch.mkdir()
        (batch / "HCP.csv").hardlink_to(changed)

    with postgres() as server:
        database = warehouse_database(server, "bench")
        # dlt wants a password where the server wants none.
        theirs = server.url(database, f"{USER}:unasked")
        settings = SETTINGS.format(port=server.port, database=database, user=LOADER)
        (tmp_path / "config/settings.yaml").write_text(settings)
        run = Program("ingestkit run", [script("ingestkit"), "--quiet", "run", "opendata"], tmp_path, deliver)
        cost(Program(run.name, run.command, tmp_path))
        # A first load makes dlt's tables.
        change("changes", "first")
        for strategy in STRATEGIES:
            cost(peers.dlt_merge(changed.parent, tmp_path, theirs, strategy, first=True))
        for schema in SCHEMAS:
            fill(server, database, schema)
        server.does("VACUUM ANALYZE", database)
        # A table that is merged into again and again: our second merge makes an index.
        warm = [cost(Program(run.name, run.command, tmp_path, deliver)) for _ in range(2)]
        dlt = [peers.dlt_merge(changed.parent, tmp_path, theirs, strategy) for strategy in STRATEGIES]
        taken = interleaved([run, *dlt], TIMES)
        last = next(days) - 1
        merged = f"SELECT count(*), count(*) FILTER (WHERE last_name__v LIKE '% the {last}th') FROM {{}}.hcp"
        valid = rows - rows // 1000
        assert server.does(merged.format("public"), database) == f"{valid}|{rows // 100}\n"
        for schema in SCHEMAS:
            assert server.does(merged.format(schema), database) == f"{valid}|{rows // 100}\n"
    facts = {f"{one.name} / {run.name}": ratio(taken, one.name, run.name) for one in dlt}
    said = [f"{rows // 100:,} changed rows of {rows:,}, in a file of {'those' if delivered == 'changes' else 'all'}"]
    said += [f"our first two merges: {', '.join(f'{one.seconds:.2f} s' for one in warm)}"]
    said += [f"{name}: {value:.2f}×" for name, value in facts.items()]
    report(f"merge_{delivered}", taken, {"rows": rows, **facts}, said)


def fill(server: PostgresServer, database: str, schema: str) -> None:
    """All rows that ingestkit has loaded, in a table that dlt has made; through dlt they would take many minutes."""
    told = server.does(
        "SELECT column_name || ' ' || data_type FROM information_schema.columns "
        f"WHERE table_schema = '{schema}' AND table_name = 'hcp' ORDER BY ordinal_position",
        database,
    )
    columns = dict(line.split(" ", 1) for line in told.splitlines())
    shown = [f"coalesce({name}::text, '')::{kind}" for name, kind in columns.items() if not name.startswith("_dlt")]
    shown += ["'1'", "md5(vid__v)"][: len(columns) - len(shown)]
    named = [name for name in columns if not name.startswith("_dlt")] + ["_dlt_load_id", "_dlt_id"]
    server.does(f"TRUNCATE {schema}.hcp", database)
    listed = ", ".join(named[: len(columns)])
    server.does(f"INSERT INTO {schema}.hcp ({listed}) SELECT {', '.join(shown)} FROM public.hcp", database)
