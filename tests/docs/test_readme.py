"""What the README says is what the program does."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import duckdb
import pytest

from ingestkit import errors
from tests.docs.pages import ROOT, below, commands, page, prose, table, typed_below
from tests.docs.shop import BIN, in_a_shell
from tests.docs.typed import every_command
from tests.services import sftp

README = page("README.md")
MADE = [line for line in commands(README) if line.startswith("make ")]
# What the benchmarks measure beside us.
BESIDE = ("tests/benchmarks/accelerator.txt", "tests/benchmarks/peers.txt")
AT_ONCE = "export INGESTKIT__PIPELINES__{}__SOURCE__SETTLE__QUIET=0s"
"""Typed once there is the pipeline: instead of the minute for which files must have been quiet."""
STOCK = """
pipeline: stock
source: {type: files, connection: tills, batches: {folders: '(?P<batch>[^/]+)', kind: text}}
models: {items: {files: items, columns: {sku: {type: string}}}}
"""


def test_the_table_of_commands_is_what_help_says() -> None:
    helps = {f"`ingestkit {name}`": " ".join(one.help.split()) for name, one in every_command().items()}
    assert table(README, "command") == [[name, said] for name, said in helps.items()]


def test_the_table_of_exit_codes_names_each_code_there_is() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.IngestkitError)]
    raised = {one.exit_code for one in kinds}
    told = {int(code) for row in table(README, "code") for code in row[0].split(", ")}
    assert told == raised | {0, 130, 143}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` needs of a source tree, with the program installed already."""
    (tmp_path / "tests/benchmarks").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", *BESIDE):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(BIN)
    (tmp_path / ".venv/installed").touch()
    return tmp_path


@pytest.fixture(autouse=True)
def made_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell of somebody's own: a make that runs these tests hands down what it was told itself."""
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)


def typed(folder: Path, line: str) -> str:
    told = subprocess.run(shlex.split(line), cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_what_make_is_told_to_make_can_be_made(checkout: Path) -> None:
    assert MADE[:2] == ["make run", "make run"]
    assert typed(checkout, "make install") == "make: Nothing to be done for 'install'.\n"
    for line in MADE:
        # Without doing it: among them are all the tests there are.
        assert "Nothing to be done" not in typed(checkout, f"{line} --dry-run --always-make")


def test_the_first_two_commands_print_what_the_readme_shows(checkout: Path) -> None:
    [block] = below(README, "ingestkit")
    shown = re.split(r"^\$ make run\n", block.text, flags=re.MULTILINE)[1:]
    printed = [typed(checkout, line) for line in MADE[:2]]
    assert [without_times(one) for one in printed] == [without_times(one) for one in shown]
    first, look = re.findall(r"`(ingestkit [^`]+)`", README.partition("\n## ")[0])[:2]
    assert "nothing new" in typed(checkout, f".venv/bin/{first}")
    assert "20260104_180000" in typed(checkout, f".venv/bin/{look}")


def test_ones_own_files_are_loaded_in_five_minutes(checkout: Path, tmp_path: Path) -> None:
    """All that is typed, in one shell; what it writes and prints is what is shown."""
    heading = "Your own files in five minutes"
    lines = typed_below(README, heading)
    # The program is on the path once that was typed, and not before.
    path = os.pathsep.join(one for one in os.environ["PATH"].split(os.pathsep) if one != str(BIN))
    assert lines[:2] == ["make install", ". .venv/bin/activate"]
    [pipeline] = [block.text for block in below(README, heading) if block.language == "yaml"]
    [run] = [block.text for block in below(README, heading) if block.language == "console"]
    check = lines.index("ingestkit check shop")
    there = [f"cd {checkout}", *lines[:check], AT_ONCE.format("SHOP"), *lines[check:]]
    printed = in_a_shell(*there, HOME=str(tmp_path), PATH=path)
    assert pipeline == "# config/pipelines/shop.yaml\n" + (tmp_path / "shop/config/pipelines/shop.yaml").read_text()
    assert "\n".join(without_times(run)[1:]) in "\n".join(without_times(printed))
    with duckdb.connect(str(tmp_path / "shop/state/warehouse.duckdb"), read_only=True) as target:
        assert target.execute("SELECT id, name FROM customers ORDER BY id").fetchall() == [(1, "Ana"), (2, "Bo")]


def test_another_pipeline_and_another_source_are_added_as_the_readme_says(tmp_path: Path) -> None:
    told = typed_below(README, "Another pipeline, another source")
    (tmp_path / "tills").mkdir()
    assert any("file:///srv/tills" in line for line in told)
    began = ["ingestkit init . --empty", "mkdir -p drop/2026-01-05", "cd drop/2026-01-05"]
    dropped = ["printf 'sku,name\\n1,Tea\\n' > items.csv", "printf 'sku,cent\\n1,250\\n' > prices.csv", "cd ../.."]
    there = [line.replace("/srv/tills", str(tmp_path / "tills")) for line in told]
    lines = [f"cd {tmp_path}", *began, *dropped, there[0], AT_ONCE.format("STOCK"), *there[1:], "ingestkit config show"]
    printed = in_a_shell(*lines)
    assert "items" in printed
    assert f"{{type: local, path: {tmp_path}/tills}}" in printed
    assert not (tmp_path / "state/warehouse.duckdb").exists()


def test_a_host_key_is_trusted_once_somebody_has_looked_at_it(tmp_path: Path) -> None:
    """On a terminal, as somebody types it who is asked and says yes."""
    said = " ".join(prose(README).split())
    [url] = re.findall(r"`--url (sftp://\S+)`", said)
    [pin] = re.findall(r"`ingestkit (check PIPELINE --pin)`", said)
    with sftp() as server:
        (tmp_path / "tills").mkdir()
        there = url.replace("USER", server.user).replace("HOST", f"127.0.0.1:{server.port}")
        there = there.replace("/FOLDER", f"{tmp_path}/tills")
        key = f"export INGESTKIT__CONNECTIONS__TILLS__KEY={server.folder}/client"
        pipeline = tmp_path / "config/pipelines/stock.yaml"
        pipeline.parent.mkdir(parents=True)
        pipeline.write_text(STOCK)
        in_a_shell(f"cd {tmp_path}", "ingestkit init . --empty", f"ingestkit new source tills --url {there}")
        shown = on_a_terminal(tmp_path, f"{key}; ingestkit {pin.replace('PIPELINE', 'stock')}", "y")
        assert server.fingerprint() in shown
        assert (tmp_path / "config/known_hosts").read_text() == server.known()
        in_a_shell(f"cd {tmp_path}", key, "ingestkit check stock")


def on_a_terminal(folder: Path, line: str, answer: str) -> str:
    """Type a line, and what it asks for; all that it shows."""
    ours, theirs = os.openpty()
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        ["bash", "-c", line], cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as told:
        os.write(ours, f"{answer}\n".encode())
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    assert told.returncode == 0, shown
    return shown


def test_init_makes_a_project_that_runs_at_once_wherever_one_stands(tmp_path: Path) -> None:
    said = " ".join(prose(README).split())
    [init] = re.findall(r"`(ingestkit init DIR)`", said)
    [option] = re.findall(r"`(--project DIR)`", said)
    lines = [init, f"ingestkit {option} run opendata", "cd DIR/config/pipelines", "ingestkit run opendata"]
    printed = in_a_shell(f"cd {tmp_path}", *(line.replace("DIR", "here") for line in lines))
    assert "3 batches done" in printed
    assert printed.rstrip().endswith("nothing new for opendata; the last batch done is 20260118_180000")


def without_times(text: str) -> list[str]:
    """The lines without how long things took, and without the room that took."""
    return [re.sub(r" +\S+ m?s$", " TIME", " ".join(line.split())) for line in text.strip().splitlines()]


def test_the_readme_is_the_packages_long_description() -> None:
    assert tomllib.loads(page("pyproject.toml"))["project"]["readme"] == "README.md"
