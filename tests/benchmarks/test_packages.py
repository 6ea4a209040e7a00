"""A package of eight files beside the same files as they are: what it costs to read them within it."""

import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.benchmarks.delivery import deliver_people
from tests.benchmarks.ledger import empty_project
from tests.benchmarks.measure import Program, interleaved, ratio, report, script

TIMES = 3
MEMBERS = 8
AS_IT_IS = "files as they are"
PACKED = "one package"


@pytest.mark.timeout(7200)
def test_a_package_beside_its_files_as_they_are(tmp_path: Path, rows: int) -> None:
    """Some 1 GB in eight files; with `--quick` a tenth of it."""
    drop = empty_project(tmp_path)
    file = tmp_path / "people.csv"
    deliver_people(file, rows * 2 // MEMBERS)
    delivery = drop / "20260104_180000"
    pipeline = tmp_path / "config/pipelines/opendata.yaml"
    contract = yaml.safe_load(pipeline.read_text())
    people = contract["models"]["hcp"]
    columns = {name: {**one, "unique": False} for name, one in people["columns"].items()}
    contract["models"] = {"hcp": {**people, "key": [], "load": "append", "columns": columns}}
    pipeline.write_text(yaml.safe_dump(contract))
    plain, package = tmp_path / "plain", tmp_path / "exp.zip"
    plain.mkdir()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(MEMBERS):
            shutil.copy(file, plain / f"hcp_{number}.csv")
            archive.write(file, f"hcp_{number}.csv")
    size = file.stat().st_size * MEMBERS
    file.unlink()

    def begin(packed: bool) -> None:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        shutil.rmtree(delivery, ignore_errors=True)
        delivery.mkdir()
        for one in [package] if packed else plain.iterdir():
            (delivery / one.name).hardlink_to(one)

    run = [script("ingestkit"), "--quiet", "run", "opendata"]
    programs = [
        Program(AS_IT_IS, run, tmp_path, lambda: begin(packed=False)),
        Program(PACKED, run, tmp_path, lambda: begin(packed=True)),
    ]
    taken = interleaved(programs, TIMES)
    speed = ratio(taken, AS_IT_IS, PACKED)
    said = [f"{MEMBERS} files of {size / 2**20:,.0f} MiB together, packed {package.stat().st_size / 2**20:,.0f} MiB"]
    said.append(f"speed of {PACKED} / {AS_IT_IS}: {speed:.2f}×, asked: at least 0.9×; memory asked: under 1,024 MiB")
    report("packages", taken, {"bytes": size, "speed": speed}, said)
