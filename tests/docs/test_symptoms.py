"""Each row of the symptoms: what makes it, the line that is said, and what to type, typed as it stands."""

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import duckdb
import psycopg
import pytest
import yaml
from alembic import command

from ingestkit.states import migrate
from ingestkit.states.engine import StateDatabase
from tests.docs.pages import page
from tests.docs.shop import ROWS, WRONG, Project, hold
from tests.docs.typed import understood
from tests.doubles.httpfaults import ACCESS_DENIED, CLOCK_SKEWED, EXPIRED_TOKEN, faulty
from tests.object_stores import s3
from tests.services import postgres
from tests.snowflake_server import DRIVE, asked, made_by, snowflake_server
from tests.warehouses import LOADER, warehouse_database

PIPELINE = Path("config/pipelines/shop.yaml")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the page: what it shows, of that the text that is said, and the commands that are to be typed."""

    shown: str
    said: str
    typed: tuple[str, ...]

    def fits(self, text: str) -> bool:
        return bool(re.search(".*?".join(re.escape(part) for part in self.said.split("…")), text))


def rows() -> list[Row]:
    found = []
    for line in page("docs/symptoms.md").splitlines():
        if line.startswith("| `"):
            shown, _, typed = line.strip("| ").split(" | ")
            commands = [one for one in re.findall(r"`([^`]+)`", typed) if "ingestkit " in one]
            found.append(Row(shown, re.findall(r"`([^`]+)`", shown)[0], tuple(commands)))
    return found


def cure(part: str, told: str) -> tuple[str, ...]:
    """What the row with this part says to type; what was told must be what it shows."""
    [row] = [one for one in rows() if part in one.shown]
    assert row.fits(told), (row.said, told)
    return row.typed


def test_every_row_is_tried_by_a_test_and_can_be_typed() -> None:
    calls = [node for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.Call)]
    parts = [ast.literal_eval(one.args[0]) for one in calls if isinstance(one.func, ast.Name) and one.func.id == "cure"]
    untried = [row.shown for row in rows() if sum(part in row.shown for part in parts) != 1]
    assert untried == []
    for line in (line for row in rows() for line in row.typed):
        understood(line)


def test_a_folder_whose_name_does_not_fit(shop: Project) -> None:
    shop.drop("2026-01-05")
    (shop.root / "drop/2026-01-05").rename(shop.root / "drop/5 January")
    show, run = cure("though a folder is there", shop.does("ingestkit run shop"))
    assert "batches" in shop.does(show)
    shop.corrects(r"folders: '(?P<batch>\d{4}-\d{2}-\d{2})', kind: date", "folders: '(?P<batch>.+)', kind: text")
    shop.does(run)
    assert shop.customers() == [1, 2]


def test_a_file_that_was_written_anew_with_its_old_size_and_time(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    file = shop.root / "drop/2026-01-05/customers.csv"
    before = file.stat()
    shop.put("2026-01-05", ROWS["2026-01-05"].replace("2,Bo", "3,Bo"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    shop.does(*cure("though its file is another", shop.does("ingestkit run shop")))
    assert shop.customers() == [1, 3]


def test_a_file_of_no_model(shop: Project) -> None:
    shop.drop("2026-01-05")
    (shop.root / "drop/2026-01-05/customers.csv").rename(shop.root / "drop/2026-01-05/kunden.csv")
    again, take_in = cure("belongs to no model", shop.does("ingestkit run shop"))
    shop.does(take_in)
    assert shop.customers() == [1, 2]
    shop.does("ingestkit manifest forget shop --path 2026-01-05/kunden.csv --reason again --yes")
    shop.corrects("(?i)^customers?", "(?i)^(customers?|kunden)")
    shop.does(again)
    assert shop.customers() == [1, 2]


def test_a_file_that_must_settle(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.corrects("quiet: 0s", "quiet: 100ms")
    shop.does(*cure("to settle", shop.does("ingestkit run shop")))


def test_a_file_that_is_not_what_its_checksum_says(shop: Project) -> None:
    shop.drop("2026-01-05")
    (shop.root / "drop/2026-01-05/customers.csv.sha256").write_text(f"{'0' * 64}  customers.csv\n")
    # It may be on its way still, and is looked for again.
    shop.corrects("source:", "retry: {attempts: 2, first_wait: 100ms}\nsource:")
    again, without = cure("is not what customers.csv.sha256 says", shop.refused("ingestkit run shop", 4))
    shop.refused(again, 4)
    shop.does(without)
    assert shop.customers() == [1, 2]


def test_a_file_that_cannot_be_moved_when_it_is_done_with(shop: Project) -> None:
    shop.corrects("  batches:", "  after_success: {move: done}\n  batches:")
    shop.drop("2026-01-05")
    (shop.root / "drop/done").write_text("in the way")
    run, show = cure("stay at the source", shop.does("ingestkit run shop"))
    assert "after_success.move" in shop.does(show)
    (shop.root / "drop/done").unlink()
    shop.does(run)
    assert (shop.root / "drop/done/2026-01-05/customers.csv").exists()


def test_a_batch_that_is_overdue(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.corrects("settle: {quiet: 0s}", "settle: {quiet: 0s, marker: _SUCCESS}\n  overdue: 0s")
    shop.does(*cure("longer than source.overdue allows", shop.refused("ingestkit run shop", 4)))
    assert "nothing new" in shop.does("ingestkit run shop")


def test_a_batch_that_came_late(shop: Project) -> None:
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    shop.drop("2026-01-05")
    load, skip = cure("came after newer ones", shop.does("ingestkit run shop"))
    shop.does(skip)
    assert "came after" not in shop.does("ingestkit run shop")
    assert "nothing new" in shop.does(load)


def test_a_late_batch_is_loaded_for_once(shop: Project) -> None:
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    shop.drop("2026-01-05")
    [load] = [one.typed[0] for one in rows() if "came after newer ones" in one.said]
    assert "superseded" in shop.does(load)


def test_a_pipeline_that_is_paused(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit pause shop --reason 'until noon'")
    show, resume = cure("paused by", shop.does("ingestkit run shop"))
    assert "until noon" in shop.does(show)
    shop.does(resume, "ingestkit run shop")
    assert shop.customers() == [1, 2]


def test_a_pipeline_that_is_held(shop: Project) -> None:
    shop.corrects("settle: {quiet: 0s}", "settle: {quiet: 0s}\nretry: {hold_after: 1}")
    shop.put("2026-01-05", WRONG)
    shop.refused("ingestkit run shop", 6)
    typed = cure("held since", shop.does("ingestkit run shop"))
    shop.drop("2026-01-05")
    shop.does(*typed)
    assert shop.customers() == [1, 2]


def test_a_batch_that_a_newer_one_supersedes(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    then = datetime.now(UTC).isoformat()
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    [back] = cure("is superseded by", shop.refused("ingestkit backfill shop --batch 2026-01-05", 2))
    shop.does(back.replace("2026-01-15T06:00Z", then))
    assert shop.customers() == [1, 2]


def test_a_lake_that_keeps_nothing(shop: Project) -> None:
    shop.corrects("pipeline: shop", "pipeline: shop\nkeep: none")
    shop.corrects("load: replace", "load: merge")
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    asked = "ingestkit backfill shop --batch 2026-01-05"
    shop.does(*cure("keeps none of them there", shop.refused(f"{asked} --from-lake", 2)))
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    [listed] = cure("cannot be merged again behind", shop.refused(asked, 2))
    assert "shop.2026-01-12.1" in shop.does(listed)


@pytest.mark.parametrize("again", [True, False])
def test_a_file_that_is_needed_once_more_and_is_gone(shop: Project, *, again: bool) -> None:
    shop.corrects("pipeline: shop", "pipeline: shop\nkeep: none")
    shop.drop("2026-01-05")
    shop.does("ingestkit extract shop")
    shutil.rmtree(shop.root / "state/scratch/passing")
    (shop.root / "drop/2026-01-05/customers.csv").unlink()
    run, skip = cure("needs it once more", shop.refused("ingestkit validate shop", 4))
    if again:
        shop.drop("2026-01-05")
        shop.does(run)
        assert shop.customers() == [1, 2]
    else:
        shop.does(skip)
        assert "nothing new" in shop.does(run)


def test_a_stage_before_its_turn(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit extract shop --run-id nightly")
    shop.does(*cure("comes after validate", shop.refused("ingestkit load shop --run-id nightly", 2)))
    assert shop.customers() == [1, 2]


def test_a_command_typed_in_another_folder(
    shop: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    [run] = cure("no project at", shop.refused("ingestkit run shop", 3))
    assert "nothing new" in shop.does(run.replace("/srv/shop", str(shop.root)))


def test_a_pipeline_there_is_not(shop: Project) -> None:
    assert str(PIPELINE) in shop.does(*cure("there is no pipeline", shop.refused("ingestkit run shpo", 3)))


def test_a_key_that_is_not_known(shop: Project) -> None:
    shop.corrects("load: replace", "laod: replace")
    [validate] = cure("unknown key", shop.refused("ingestkit run shop", 3))
    shop.refused(validate, 3)
    shop.corrects("laod: replace", "load: replace")
    shop.does(validate)


def test_a_variable_that_is_not_set(shop: Project) -> None:
    settings = shop.root / "config/settings.yaml"
    settings.write_text(settings.read_text() + "state: {url: '${env:STATE_URL}'}\n")
    [check] = cure("needs the environment variable", shop.refused("ingestkit run shop", 3))
    (shop.root / "config.env").write_text("STATE_URL=sqlite:///state/named.db\n")
    shop.does(check)


def test_a_state_that_is_older_than_the_program(shop: Project) -> None:
    (shop.root / "state").mkdir()
    old = StateDatabase.connect("sqlite:///state/ingestkit.db", 1)
    with old.write() as conn:
        command.upgrade(migrate._alembic(conn), "0001")
    old.close()
    shop.does(*cure("older than this ingestkit's", shop.refused("ingestkit run shop", 3)), "ingestkit run shop")


def test_a_drop_folder_that_is_not_there(shop: Project) -> None:
    (shop.root / "drop").rmdir()
    typed = cure("the drop folder", shop.refused("ingestkit run shop", 4))
    (shop.root / "drop").mkdir()
    shop.does(*typed)


def test_an_archive_that_was_cut_off(shop: Project) -> None:
    archive = shop.root / "drop/2026-01-05/customers.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("customers.csv", ROWS["2026-01-05"])
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-30])
    typed = cure("no whole zip", shop.refused("ingestkit run shop", 4))
    archive.write_bytes(whole)
    shop.does(*typed)
    assert shop.customers() == [1, 2]


COUNTED = "settle: {quiet: 0s}\n  totals: {report: '{stem}.json', counts: n}"


def test_a_report_that_is_none(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.corrects("settle: {quiet: 0s}", COUNTED)
    report = shop.root / "drop/2026-01-05/customers.json"
    report.write_text('{"n": {"cust')
    typed = cure("is no report of counts", shop.refused("ingestkit run shop", 4))
    report.write_text('{"n": {"customers": 2}}')
    shop.does(*typed)
    assert shop.customers() == [1, 2]


def test_a_report_that_counts_more_than_came(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.corrects("settle: {quiet: 0s}", COUNTED)
    (shop.root / "drop/2026-01-05/customers.json").write_text('{"n": {"customers": 3}}')
    again, approve, run = cure("and 2 were read", shop.refused("ingestkit run shop", 5))
    shop.refused(again, 5)
    shop.does(approve, run)
    assert shop.customers() == [1, 2]


def test_a_column_in_no_contract(shop: Project) -> None:
    shop.put("2026-01-05", "id,name,since,phone\n1,Ana,,2\n")
    typed = cure("is in no contract", shop.refused("ingestkit run shop", 5))
    shop.corrects("    load: replace", "    load: replace\n    drift: ignore")
    shop.does(*typed)
    assert shop.customers() == [1]


def test_another_delimiter(shop: Project) -> None:
    shop.put("2026-01-05", ROWS["2026-01-05"].replace(",", ";"))
    typed = cure("by the delimiter", shop.refused("ingestkit run shop", 5))
    shop.corrects("    load: replace", "    load: replace\n    csv: {delimiter: ';'}")
    shop.does(*typed)
    assert shop.customers() == [1, 2]


def test_a_file_of_which_most_breaks_the_contract(shop: Project) -> None:
    shop.put("2026-01-05", "id,name,since\n1,Ana,31.01.2024\n2,Bo,01.02.2024\n3,Cleo,\n")
    look, run = cure("max_file_reject_pct", shop.refused("ingestkit run shop", 5))
    assert "31.01.2024" in shop.does(look)
    shop.corrects("since: {type: date}", "since: {type: date, format: '%d.%m.%Y'}")
    shop.does(run)
    assert shop.customers() == [1, 2, 3]


def test_more_rejects_than_the_limit(shop: Project) -> None:
    shop.put("2026-01-05", WRONG)
    look, approve, run = cure("reject_rate is", shop.refused("ingestkit run shop", 6))
    assert "2025-02-30" in shop.does(look)
    shop.does(approve, run)
    assert shop.customers() == [1]


def test_many_more_rows_than_usual(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    shop.put("2026-01-12", "id,name,since\n" + "".join(f"{number},Ana,\n" for number in range(9)))
    shop.does(*cure("row_delta is", shop.refused("ingestkit run shop", 6)))
    assert shop.customers() == list(range(9))


def test_a_file_without_rows(shop: Project) -> None:
    shop.drop("2026-01-05", "2026-01-19")
    shop.put("2026-01-12", "id,name,since\n")
    shop.does(*cure("empty is", shop.refused("ingestkit run shop", 6)), "ingestkit run shop")
    assert shop.customers() == [4]


def test_a_table_that_was_dropped(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    shop.drop("2026-01-12")
    with duckdb.connect("state/warehouse.duckdb") as target:
        target.execute("DROP TABLE customers")
    shop.does(*cure("does not hold it as it was", shop.refused("ingestkit run shop", 7)))
    assert shop.customers() == [1, 3]


def test_a_state_that_was_deleted(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    for file in (shop.root / "state").glob("ingestkit.db*"):
        file.unlink()
    shop.does(*cure("its mirror shows run", shop.alone_refused("ingestkit run shop", 7)))
    assert "nothing new" in shop.does("ingestkit run shop")


def test_a_machine_that_was_lost_and_not_its_lake(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    for file in (*(shop.root / "state").glob("ingestkit.db*"), shop.root / "state/warehouse.duckdb"):
        file.unlink()
    shutil.rmtree(shop.root / "state/mirror")
    shutil.rmtree(shop.root / "drop")
    shop.drop("2026-01-12")
    shop.does(*cure("but the lake holds", shop.alone_refused("ingestkit run shop", 7)))
    assert "nothing new" in shop.does("ingestkit run shop")
    assert shop.customers() == [1, 3]


def lake_in(shop: Project, bucket: str, endpoint: str) -> None:
    path = shop.root / "config/settings.yaml"
    said = yaml.safe_load(path.read_text())
    lake = {"type": "s3", "bucket": bucket, "endpoint_url": endpoint, "path_style": True}
    said["profiles"]["local"]["connections"]["lake"] = lake
    path.write_text(yaml.safe_dump(said))


@pytest.mark.services
def test_a_lake_in_a_service_that_refuses(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.drop("2026-01-05")
    with s3() as server, faulty(server.endpoint) as service:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket = server.bucket()
        lake_in(shop, "no-such-bucket", service.endpoint)
        missing = cure("s3://… does not exist", shop.refused("ingestkit check shop", 7))
        lake_in(shop, bucket, service.endpoint)
        shop.does(missing[0])
        service.breaks(ACCESS_DENIED, "PUT", times=None)
        refused = cure("does not allow it", shop.refused("ingestkit check shop", 7))
        service.heals()
        shop.does(refused[0])
        service.breaks(EXPIRED_TOKEN, times=None)
        expired = cure("credentials have expired", shop.refused("ingestkit check shop", 7))
        service.heals()
        shop.does(expired[0])
        service.breaks(CLOCK_SKEWED, times=None)
        skewed = cure("clock is wrong", shop.refused("ingestkit check shop", 7))
        service.heals()
        shop.does(*skewed)
    assert shop.customers() == [1, 2]


def test_a_target_that_another_project_writes_to(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    for file in (shop.root / "state").glob("ingestkit.db*"):
        file.unlink()
    # The other has a lake of its own.
    for folder in ("mirror", "lake"):
        shutil.rmtree(shop.root / "state" / folder)
    shop.does(*cure("by another state", shop.alone_refused("ingestkit run shop", 7)))
    shop.does("ingestkit run shop")
    assert shop.customers() == [1, 2]


def test_a_state_that_was_put_back(shop: Project) -> None:
    state = shop.root / "state/ingestkit.db"
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    copy = state.read_bytes()
    shop.drop("2026-01-12")
    shop.does("ingestkit run shop")
    for file in state.parent.glob("ingestkit.db*"):
        file.unlink()
    state.write_bytes(copy)
    shop.does(*cure("it is an older copy", shop.alone_refused("ingestkit run shop", 7)))
    assert "nothing new" in shop.does("ingestkit run shop")


def test_two_pipelines_of_one_table(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    other = shop.root / "config/pipelines/other.yaml"
    other.write_text((shop.root / PIPELINE).read_text().replace("pipeline: shop", "pipeline: other"))
    typed = cure("cannot have it too", shop.refused("ingestkit run other", 7))
    other.write_text(other.read_text().replace("    load:", "    table: other_customers\n    load:"))
    shop.does(*typed)


def test_a_lease_that_is_held(shop: Project) -> None:
    begun, over = threading.Event(), threading.Event()
    other = threading.Thread(target=hold, args=(shop.root, begun, over))
    other.start()
    assert begun.wait(30)
    try:
        shop.drop("2026-01-05")
        typed = cure("being worked on by process", shop.refused("ingestkit run shop", 8))
        threading.Timer(0.2, over.set).start()
        shop.does(*typed)
    finally:
        over.set()
        other.join()
    assert shop.customers() == [1, 2]


def test_a_run_whose_stages_are_called_one_by_one(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit extract shop --run-id nightly")
    shop.does(*cure("another command's", shop.refused("ingestkit run shop", 8)))
    assert shop.customers() == [1, 2]


def test_a_warehouse_file_that_another_program_has_open(shop: Project) -> None:
    shop.drop("2026-01-05")
    shop.does("ingestkit run shop")
    shop.drop("2026-01-12")
    settings = shop.root / "config/settings.yaml"
    settings.write_text(settings.read_text().replace("{type: duckdb,", "{type: duckdb, lock_timeout: 100ms,"))
    program = "import duckdb; held = duckdb.connect('state/warehouse.duckdb'); print(flush=True); input()"
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        typed = cure("still after", shop.refused("ingestkit run shop", 8))
        other.communicate("\n")
    shop.does(*typed)
    assert shop.customers() == [1, 3]


@pytest.mark.services
@pytest.mark.slow
def test_a_reader_who_keeps_a_table_of_a_server(shop: Project) -> None:
    settings = shop.root / "config/settings.yaml"
    with postgres() as server:
        place = f"host: 127.0.0.1, port: {server.port}, database: {warehouse_database(server, 'shop')}, user: {LOADER}"
        told = f"type: postgresql, {place}, lock_timeout: 300ms"
        settings.write_text(settings.read_text().replace("type: duckdb, path: state/warehouse.duckdb", told))
        shop.drop("2026-01-05")
        shop.does("ingestkit run shop")
        shop.drop("2026-01-12")
        with psycopg.connect(server.url("shop")) as reader:
            reader.execute("SELECT * FROM customers")
            typed = cure("still locked after", shop.refused("ingestkit run shop", 8))
            reader.rollback()
        shop.does(*typed)
        assert server.does("SELECT id FROM customers ORDER BY id", "shop").split() == ["1", "3"]


@pytest.mark.services
@pytest.mark.slow
def test_runs_that_cannot_be_shown_in_snowflake(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = shop.root / "config/settings.yaml"
    with snowflake_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        database = server.database()
        place = f"account: {server.account}, user: {server.user}, warehouse: {server.warehouse}, database: {database}"
        door = f"private_key: {server.private_key}, endpoint: 'http://127.0.0.1:{server.port}'"
        told = f"type: snowflake, {place}, {door}, mirror_runs: true"
        settings.write_text(settings.read_text().replace("type: duckdb, path: state/warehouse.duckdb", told))
        shop.drop("2026-01-05")
        check, run = cure("the mirror of runs", shop.does("ingestkit run shop"))
        assert "sql/drive/snowflake.sql" in shop.refused(check, 7)
        with closing(server.connect(database)) as link:
            made_by(partial(asked, link), DRIVE, database=database, schema="PUBLIC", role=server.role)
            shop.does(check, run)
            assert asked(link, "SELECT BATCH, STATUS FROM INGESTKIT_RUN") == [("2026-01-05", "SUCCESS")]


def test_meters_that_are_not_told(shop: Project) -> None:
    settings = shop.root / "config/settings.yaml"
    settings.write_text(
        settings.read_text() + "\nmetrics: {otlp: {endpoint: 'http://x', headers: {key: '${env:OF_NOBODY}'}}}\n"
    )
    shop.drop("2026-01-05")
    check, run = cure("not all meters were told", shop.does("ingestkit run shop"))
    assert shop.customers() == [1, 2]
    assert "OF_NOBODY" in shop.refused(check, 3)
    settings.write_text(
        settings.read_text().replace(
            "otlp: {endpoint: 'http://x', headers: {key: '${env:OF_NOBODY}'}}", "textfile: {folder: prom}"
        )
    )
    shop.does(check)
    assert "not all meters" not in shop.does(run)
    assert (shop.root / "prom/ingestkit_shop.prom").is_file()


def test_a_range_of_which_a_batch_fails(shop: Project) -> None:
    shop.corrects("load: replace", "load: merge")
    shop.drop("2026-01-05", "2026-01-12")
    shop.does("ingestkit run shop")
    shop.put("2026-01-12", WRONG)
    range_of = "ingestkit backfill shop --from 2026-01-05 --to 2026-01-19"
    typed = cure("batches failed", shop.refused(range_of, 9))
    shop.drop("2026-01-12")
    shop.does(*typed)
    assert shop.customers() == [1, 2, 3]
