"""The page of the pipeline `network`: every command, typed as it stands where it is needed."""

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.docs.pages import ROOT, page, typed_below
from tests.docs.shop import Project

PAGE = page("docs/network.md")
SAMPLES = ROOT / "config/samples/network"
TABLES = ("hcp", "hco", "address", "license", "parenthco", "customkey", "reference")


def lines(heading: str) -> list[str]:
    return typed_below(PAGE, heading)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    """The sample project, with a folder for its packages that is empty yet."""
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("samples"))
    shutil.copytree(ROOT / "sql", tmp_path / "sql")
    (tmp_path / "config/samples/network").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys)


def come(project: Project, *numbers: str) -> None:
    for number in numbers:
        name = f"exp_000001{number.removeprefix('1').upper()}.zip"
        shutil.copy(SAMPLES / name, project.root / "config/samples/network" / name)


def remade(project: Project, number: str, changed: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    """A package with other members."""
    path = project.root / f"config/samples/network/exp_000001{number.removeprefix('1').upper()}.zip"
    into = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(into, "w") as after:
        for info in before.infolist():
            after.writestr(*changed(info.filename, before.read(info)))
    path.write_bytes(into.getvalue())


def rows(project: Project, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(project.root / "state/warehouse.duckdb"), read_only=True) as target:
        return target.execute(f"SELECT {columns} FROM network_{table} ORDER BY ALL").fetchall()


def everything(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """Rows without the run and batch they came by."""
    return {table: rows(project, table, "* EXCLUDE (_run_id, _batch)") for table in TABLES}


def test_the_samples_are_what_the_page_says(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    run, shown = lines("Packages of Veeva Network")
    assert "3 batches done: 1c5, 1c6, 1c7" in network.does(run)
    assert "exp_000001C6.zip!PARENTHCO_delta.csv" in network.does(shown)
    assert {table: len(rows(network, table)) for table in TABLES} == {
        "hcp": 27,
        "hco": 11,
        "address": 31,
        "license": 31,
        "parenthco": 32,
        "customkey": 32,
        "reference": 2,
    }
    numbers = {vid[-3:]: gone for vid, gone in rows(network, "hcp", "vid__v, _deleted")}
    # Deleted, opted out later and at first, and one whose number is none.
    assert not {"003", "004", "011", "022", "012"} & set(numbers)
    assert [number for number, gone in numbers.items() if gone] == ["007"]
    assert rows(network, "hco", '"340B_eligible__v", _deleted')[-1] == (True, False)
    assert ("Specialty", "IM", "Internal Medicine", "Medicina Interna") in rows(
        network, "reference", '"Reference Type", "Network Code", "EN", "PT_BR"'
    )
    [(code,)] = rows(network, "hcp__rejects", "code")
    assert code == "pattern"


def test_what_the_job_counted_is_compared_where_its_report_lies_beside_the_package(network: Project) -> None:
    pipeline = network.root / "config/pipelines/network.yaml"
    said = re.findall(r"`(totals: .*)` under `source`", PAGE)
    text = pipeline.read_text()
    assert f"  # {said[0]}\n" in text
    pipeline.write_text(text.replace("  # totals:", "  totals:"))
    come(network, "1c5")
    run = lines("Packages of Veeva Network")[0]
    assert "its report exp_000001C5.json has not come" in network.does(run)
    # As the interface of Network tells of a job: old names, some numbers as texts, and no word of reference data.
    counts = {"LICENSE": 30, "RELATION": 30, "HCO": "10", "HCP": 31, "ADDRESS": 30, "EXTERNALKEYS": 30}
    report = network.root / "config/samples/network/exp_000001C5.json"
    report.write_text(json.dumps({"job_status": "COMPLETE", "jobExportCount": counts, "total_records_exported": "42"}))
    told = network.refused(run, 5)
    assert "hcp: exp_000001C5.json says 31 records of HCP, and 30 were read: nothing was published" in told
    report.write_text(json.dumps({"job_status": "COMPLETE", "jobExportCount": counts | {"HCP": 30}}))
    assert "1 batch done: 1c5" in network.does(run)


def counted(project: Project, number: str) -> dict[str, int]:
    """How many records of what a package holds, by the names its entities have in reports."""
    path = project.root / f"config/samples/network/exp_000001{number.removeprefix('1').upper()}.zip"
    counts = {}
    with zipfile.ZipFile(path) as package:
        for name in package.namelist():
            entity = re.sub(r"^US_|_delta.*|\.csv$", "", name).upper()
            delimiter = "," if entity == "REFERENCE" else "|"
            with package.open(name) as member:
                counts[entity] = sum(1 for _ in csv.reader(io.TextIOWrapper(member, "utf-8"), delimiter=delimiter)) - 1
    return counts


def test_what_is_full_the_job_says_where_its_report_lies_beside_the_package(network: Project) -> None:
    run = lines("Packages of Veeva Network")[0]
    come(network, "1c5", "1c6", "1c7")
    network.does(run)
    by_names = everything(network)
    shutil.rmtree(network.root / "state")
    assert "its `exportFull` says it with\n  `delta_by_report: true` and `full: exportFull` among the `totals`" in PAGE
    pipeline = network.root / "config/pipelines/network.yaml"
    text = pipeline.read_text()
    text = text.replace("  # totals:", "  totals:").replace("jobExportCount}", "jobExportCount, full: exportFull}")
    pipeline.write_text(re.sub(r"\bdelta: .*", "delta_by_report: true", text))
    for number in ("1c5", "1c6", "1c7"):
        said = {"exportFull": number == "1c5", "jobExportCount": counted(network, number)}
        name = f"exp_000001{number.removeprefix('1').upper()}.json"
        (network.root / "config/samples/network" / name).write_text(json.dumps(said))
    assert "3 batches done: 1c5, 1c6, 1c7" in network.does(run)
    assert everything(network) == by_names


def test_a_package_that_failed_is_done_when_it_is_put_right(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    remade(network, "1c6", lambda name, content: (name, content.replace(b"|", b";")))
    assert "1c6" in network.refused("ingestkit run network", 5)
    listed, shown, again = lines("A package failed")
    assert "network.1c6.1" in network.does(listed)
    assert "delimiter" in network.does(shown)
    come(network, "1c6")
    assert "2 batches done: 1c6, 1c7" in network.does(again)


def test_a_missing_package_is_waited_for_and_stepped_over(network: Project) -> None:
    come(network, "1c5", "1c7")
    assert "1c5" in network.does("ingestkit run network")
    plan, skip, run = lines("A package is missing")
    assert "1c6" in network.does(plan)
    assert "batch 1c7 waits: 1c6" in network.does("ingestkit run network")
    network.does(skip)
    assert "1c7" in network.does(run)
    assert len(rows(network, "customkey")) == 30


def test_a_package_is_loaded_again_and_newer_ones_stand(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    network.does("ingestkit run network")
    before = everything(network)
    network.does(*lines("A package must be loaded again"))
    assert everything(network) == before
    assert "nothing new" in network.does("ingestkit run network")


def test_the_cursor_is_set(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    settled, run = lines("Packages were loaded by something else")
    network.does(settled)
    assert "2 batches done: 1c6, 1c7" in network.does(run)


def test_all_packages_are_taken_again(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    network.does("ingestkit run network")
    before = everything(network)
    again, run = lines("All packages must be loaded again")
    network.does(again)
    assert "3 batches done: 1c5, 1c6, 1c7" in network.does(run)
    assert everything(network) == before


def test_what_waits_in_quarantine_is_taken_in(network: Project) -> None:
    come(network, "1c5")
    network.does("ingestkit run network")
    listed, replay, take_in = lines("Something waits in quarantine")
    assert "npi_num__v" in network.does(listed)
    file = network.root / "config/pipelines/network.yaml"
    file.write_text(re.sub("npi_num__v: .*", "npi_num__v: {}", file.read_text()))
    before = len(rows(network, "hcp"))
    network.does(replay)
    assert len(rows(network, "hcp")) == before + 1
    come(network, "1c6")
    remade(network, "1c6", lambda name, content: (name.replace("US_HCP", "doctors"), content))
    network.does("ingestkit run network")
    assert "unmapped" in network.does(listed)
    network.does(take_in)
    assert len(rows(network, "hcp")) == before + 3
    assert "keep: none" in network.refused("ingestkit backfill network --batch 1c5", 2)
    assert "nothing new" in network.does("ingestkit run network")


def test_lost_tables_are_loaded_again(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    network.does("ingestkit run network")
    before = everything(network)
    (network.root / "state/warehouse.duckdb").unlink()
    assert "state reset network" in network.refused("ingestkit run network", 7)
    network.does(*lines("The tables were lost"))
    assert everything(network) == before


def test_what_is_kept_of_packages_that_are_done(network: Project) -> None:
    come(network, "1c5", "1c6", "1c7")
    network.does("ingestkit run network")
    lake = network.root / "state/lake"
    assert not [path for kind in ("raw", "valid") for path in (lake / kind).rglob("*") if path.is_file()]
    assert [path for path in (lake / "rejects/network/hcp").rglob("*") if path.is_file()]
    file = network.root / "config/pipelines/network.yaml"
    before = everything(network)
    shutil.rmtree(network.root / "state")
    file.write_text(file.read_text().replace("keep: none", "keep: all"))
    network.does("ingestkit run network")
    assert [path for path in (lake / "raw/network/hcp").rglob("*") if path.is_file()]
    assert everything(network) == before
    (network.root / "state/warehouse.duckdb").unlink()
    network.does("ingestkit backfill network --from-lake", "ingestkit run network")
    assert everything(network) == before
