"""A new project runs at once, whether it is made from a source tree or from a wheel, and nothing is written over."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ingestkit import project
from ingestkit.cli.main import call

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from ingestkit.cli.main import call; sys.exit(call(sys.argv[1:]))"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def typed(folder: Path, *words: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **({"PYTHONPATH": str(packages)} if packages else {})}
    command = [sys.executable, "-c", COMMAND, *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_new_project_runs_at_once(tmp_path: Path) -> None:
    made = typed(tmp_path, "init", "shop")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1].split() == ["next", "cd", "shop", "&&", "ingestkit", "run", "opendata"]
    ran = typed(tmp_path / "shop", "run", "opendata")
    assert ran.returncode == 0, ran.stderr
    assert "3 batches done" in ran.stdout
    assert "merged_into_somebody" in typed(tmp_path / "shop", "runs", "show", "opendata.20260118_180000.1").stdout


@pytest.mark.slow
def test_what_a_wheel_carries_is_the_sample_project_of_this_repository(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert typed(tmp_path, "init", "from_wheel", packages=installed).returncode == 0
    assert typed(tmp_path, "init", "from_source").returncode == 0
    told = files(tmp_path / "from_wheel")
    # It names the folder it is in.
    told.pop("crontab.example")
    assert told.items() <= files(tmp_path / "from_source").items()
    for below in ("config", "sql/gate"):
        here = {f"{below}/{name}": content for name, content in files(ROOT / below).items()}
        assert here.items() <= told.items()
    ran = typed(tmp_path / "from_wheel", "run", "opendata", packages=installed)
    assert "3 batches done" in ran.stdout, ran.stderr
    assert "SUCCESS_WITH_REJECTS" in typed(tmp_path / "from_wheel", "query", "latest-runs", packages=installed).stdout
    shipped = {path.name for path in (installed / "ingestkit/states/ops").iterdir()}
    assert shipped == {path.name for path in (ROOT / "sql/ops").iterdir()}


def test_an_empty_project_is_right_and_has_no_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init", str(tmp_path / "shop"), "--empty"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("ingestkit new pipeline NAME --from-file SAMPLE")
    loaded = project.load(tmp_path / "shop", environ={})
    assert set(loaded.settings.connections) == {"drop", "lake", "warehouse"}
    assert loaded.pipelines() == ()


def test_a_file_that_says_something_else_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/settings.yaml").write_text("jobs: 3\n")
    assert call(["init", str(tmp_path)]) == 2
    assert f"{tmp_path}/config/settings.yaml: there already" in capsys.readouterr().err
    assert files(tmp_path) == {"config/settings.yaml": b"jobs: 3\n"}


def test_a_link_to_nowhere_is_not_written_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/settings.yaml").symlink_to(tmp_path / "elsewhere")
    assert call(["init", str(tmp_path)]) == 2
    assert "settings.yaml: there already" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_what_was_cut_short_is_finished_by_the_same_command(tmp_path: Path) -> None:
    assert call(["init", str(tmp_path)]) == 0
    whole = files(tmp_path)
    for name in ("config/settings.yaml", "crontab.example", "sql/gate/opendata/merged_into_somebody.sql"):
        (tmp_path / name).unlink()
    assert call(["init", str(tmp_path)]) == 0
    assert files(tmp_path) == whole


def test_the_settings_are_written_last_so_that_half_a_project_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["init", str(tmp_path), "--output", "json"]) == 0
    assert '"config/settings.yaml"], "there_already"' in capsys.readouterr().out


def test_an_ignore_file_that_is_there_is_left_and_what_it_lacks_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\nstate/\n")
    assert call(["init", str(tmp_path)]) == 0
    assert capsys.readouterr().err.endswith("is left as it is, and lacks /config.env, /cron.log\n")
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\nstate/\n"


def test_a_file_is_no_folder_for_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("")
    assert call(["init", str(tmp_path / "notes")]) == 2
    assert "notes is no folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("")
    assert call(["init", str(tmp_path / "notes" / "shop")]) == 7
    assert "notes/shop cannot be written" in capsys.readouterr().err


def test_the_line_for_cron_runs_in_the_project_that_was_written(tmp_path: Path) -> None:
    assert call(["init", str(tmp_path / "shop")]) == 0
    line = (tmp_path / "shop/crontab.example").read_text().splitlines()[-1]
    command = line.split(maxsplit=5)[5].replace("\\%", "%")
    assert subprocess.run(["/bin/sh", "-c", command], check=False, cwd="/").returncode == 0
    assert "3 batches done" in (tmp_path / "shop/cron.log").read_text()


def test_the_cron_line_names_the_folder_as_cron_and_shell_take_it(tmp_path: Path) -> None:
    assert call(["init", str(tmp_path / "our 100% shop"), "--empty"]) == 0
    line = (tmp_path / "our 100% shop/crontab.example").read_text().splitlines()[-1]
    assert line.startswith(f"*/15 * * * * cd '{tmp_path}/our 100\\% shop' && ")
    assert line.endswith("ingestkit --log-format json run --if-locked skip >>cron.log 2>&1")
