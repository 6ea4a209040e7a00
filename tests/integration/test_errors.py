"""What goes wrong is told in one clear line, with the next command and the exit code that says whose turn it is."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestkit.stores.local import LocalStore
from tests.integration.world import FIRST, SECOND, World

NOBODY = 65534


@pytest.fixture
def ordinary(capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    """A project of a user who is not allowed everything, whoever runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="ingestkit-"))
    world = World(folder, capsys)
    world.settle()
    world.set_up()
    world.drop(FIRST)
    world.does("run")
    world.drop(SECOND)
    root = os.geteuid() == 0
    if root:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield world
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_is_no_project_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = World(tmp_path, capsys).refused(3, "run")
    assert "no project at" in said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models.a.laod": "merge"}, "laod"),
        ({"gate.max_reject_pct": 101}, "gate.max_reject_pct"),
        ({"source.settle.quiet": 5}, "source.settle.quiet"),
        ({"models.a.key": ["nobody"]}, "nobody"),
        ({"source.batches.folders": "("}, "source.batches.folders"),
        ({"source.connection": "elsewhere"}, "elsewhere"),
        ({"models": None}, "models"),
    ],
)
def test_a_wrong_configuration_is_told_with_file_and_key(world: World, changes: dict[str, object], told: str) -> None:
    world.set_up(changes)
    said = world.refused(3, "run")
    assert "config/pipelines/p.yaml" in said
    assert told in said


def test_a_file_that_is_no_yaml_is_told_with_its_line(world: World) -> None:
    (world.root / "config/pipelines/p.yaml").write_text("pipeline: p\nmodels: [\n")
    assert "config/pipelines/p.yaml" in world.refused(3, "run")


def test_a_secret_that_is_not_there_is_named_and_nothing_is_opened(world: World) -> None:
    world.settle({"connections.drop.path": "${env:NO_SUCH_PLACE}"})
    world.set_up()
    assert "NO_SUCH_PLACE" in world.refused(3, "run")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--nonsense"), "--nonsense"),
        (("run", "--limit", "none"), "--limit"),
        (("run", "--limit", "0"), "--limit"),
        (("run", "--if-locked", "sometimes"), "--if-locked"),
        (("rnu",), "rnu"),
        (("skip", "p"), "--batch"),
        (("backfill",), "--batch, --run-id, or --from and --to"),
        (("runs", "list", "--status", "GREEN"), "--status"),
    ],
)
def test_wrong_flags_are_named(world: World, arguments: tuple[str, ...], told: str) -> None:
    said = world.refused(2, *arguments)
    assert told in said


def test_a_pipeline_that_is_none_is_named_with_those_there_are(world: World) -> None:
    world.set_up(pipeline="other")
    said = world.refused(3, "run", "nobody")
    assert "nobody" in said
    assert "other" in said


def test_a_drop_folder_that_is_missing_says_what_to_do(world: World) -> None:
    (world.root / "drops").rmdir()
    said = world.refused(4, "run")
    assert "the drop folder" in said
    assert "does not exist" in said
    assert "hint: mount it or make it" in said


def test_a_drop_folder_that_is_a_file_says_so(world: World) -> None:
    (world.root / "drops").rmdir()
    (world.root / "drops").touch()
    assert "is not a folder" in world.refused(4, "run")


def test_a_drop_folder_nobody_may_read_is_the_sources_failure(ordinary: World) -> None:
    (ordinary.root / "drops").chmod(0)
    said = ordinary.refused(4, "run")
    assert "no permission to read" in said
    assert "hint: look at its rights: ls -ld" in said


def test_a_file_nobody_may_read_fails_its_run(ordinary: World) -> None:
    (ordinary.root / "drops/20260108/a.csv").chmod(0)
    said = ordinary.refused(4, "run")
    assert "no permission to read" in said
    assert "20260108/a.csv" in said
    assert ordinary.run_row("p.20260108.1")["status"] == "FAILED"
    (ordinary.root / "drops/20260108/a.csv").chmod(0o644)
    ordinary.does("run")
    assert ordinary.checkpoint() == "20260108"


@pytest.mark.parametrize("folder", ["lake/_inflight", "lake/raw/p/a", "state", "."])
def test_a_folder_nobody_may_write_is_named(ordinary: World, folder: str) -> None:
    path = ordinary.root / folder
    path.chmod(0o555)
    if folder == "state":
        (ordinary.root / "state/ingestkit.db").chmod(0o444)
    said = ordinary.refused(7, "run")
    assert str(path if folder != "." else ordinary.root / "warehouse.duckdb") in said, said
    path.chmod(0o755)
    (ordinary.root / "state/ingestkit.db").chmod(0o644)
    ordinary.does("run")
    assert ordinary.checkpoint() == "20260108"


def test_a_configuration_nobody_may_read_is_named(ordinary: World) -> None:
    (ordinary.root / "config/pipelines/p.yaml").chmod(0)
    assert "config/pipelines/p.yaml" in ordinary.refused(3, "run")


def test_a_disk_that_is_full_is_told_and_the_next_run_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(FIRST)

    def full(self: LocalStore, inflight: str) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: full(None, ""))  # type: ignore[arg-type]
        said = world.refused(7, "run")
    assert "No space left on device" in said
    world.does("run")
    assert world.checkpoint() == "20260101"


def test_a_state_of_a_newer_version_is_refused_before_anything_happens(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.state("UPDATE ingestkit_version SET version_num = '9999'")
    world.drop(SECOND)
    for command in ("run", "extract", "runs list", "state show"):
        said = world.refused(7, *command.split())
        assert "9999" in said, command
        assert "newer" in said
    assert world.table("a", "id", "n") == [("1", 10), ("2", 20)]


def test_a_state_that_is_no_database_is_named(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.database.write_bytes(b"this is not a database at all, and never was one" * 100)
    assert "ingestkit.db" in world.refused(7, "run")


def test_a_warehouse_that_is_no_database_is_named(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    (world.root / "warehouse.duckdb").write_bytes(b"this is not a database at all" * 1000)
    world.drop(SECOND)
    assert "warehouse.duckdb" in world.refused(7, "run")


def test_a_lake_whose_object_was_lost_is_told(world: World) -> None:
    world.drop(FIRST)
    world.does("extract", "--run-id", "R")
    [row] = world.files("--path", "20260101/a.csv")
    (world.root / "lake" / row["raw"]).unlink()
    said = world.refused(7, "validate", "--run-id", "R")
    assert f"the lake has lost {row['raw']}" in said
    assert "to fetch it again: ingestkit extract p --run-id R --force; then: ingestkit run p --run-id R" in said
    world.does("extract", "--run-id", "R", "--force")
    world.does("run", "--run-id", "R")
    assert world.table("a", "id") == [("1",), ("2",)]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("state.folder", "/proc/nope"),
        ("scratch", "/proc/nope"),
        ("state.url", "sqlite:////proc/nope/state.db"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told_with_the_setting_that_names_it(
    ordinary: World, setting: str, said: str
) -> None:
    ordinary.settle({setting: said})
    told = ordinary.refused(7, "run")
    assert "folder /proc/nope" in told
    assert f"hint: name another {'in' if setting == 'state.url' else 'as'} {setting}" in told


def test_a_mirror_that_cannot_be_written_only_warns(ordinary: World) -> None:
    (ordinary.root / "state/mirror").chmod(0o555)
    ended = ordinary.call("run")
    assert ended.code == 0
    assert "the mirror could not be written" in ended.err
    assert ordinary.checkpoint() == "20260101"
    (ordinary.root / "state/mirror").chmod(0o755)
    assert ordinary.does("run")["status"] == "nothing new"
    assert ordinary.checkpoint() == "20260108"


def test_sidecars_for_people_that_cannot_be_written_only_warn(ordinary: World) -> None:
    (ordinary.root / "state/runs/p").chmod(0o555)
    ended = ordinary.call("run")
    assert ended.code == 0
    assert "the sidecar for people could not be written" in ended.err


def test_a_name_at_the_source_that_is_no_text_is_told(world: World) -> None:
    world.drop(FIRST)
    (world.root / os.fsdecode(b"drops/20260101/a_\xff.csv")).write_text("id,n\n")
    said = world.refused(4, "run")
    assert "is not UTF-8" in said


def test_folders_of_the_project_that_may_not_be_read_are_named(ordinary: World) -> None:
    pipelines, scratch = ordinary.root / "config/pipelines", ordinary.root / "state/scratch"
    pipelines.chmod(0)
    assert "config/pipelines cannot be read" in ordinary.refused(3, "run")
    pipelines.chmod(0o755)
    scratch.chmod(0)
    assert "state/scratch cannot be read" in ordinary.refused(7, "run", "p")


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "list", "q"),
        ("manifest", "show", "q"),
        ("manifest", "export", "q"),
        ("quarantine", "list", "q"),
        ("query", "latest-runs", "--pipeline", "q"),
        ("queue", "show", "q"),
    ],
    ids=" ".join,
)
def test_of_a_pipeline_that_nobody_knows_nothing_is_found_nor_said_to_be_nothing(
    world: World, command: tuple[str, ...]
) -> None:
    assert "there is no pipeline 'q'; known are p" in world.refused(3, *command)
    world.drop(FIRST)
    world.does("run")
    # What was done by a pipeline whose file is gone can still be asked for.
    (world.root / "config/pipelines/p.yaml").rename(world.root / "config/p.yaml")
    gone = [word if word != "q" else "p" for word in command]
    assert world.call(*gone).code == 0


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("runs", "list", "--status", "filed"), "such as: --status FAILED"),
        (("manifest", "show", "--status", "foo"), "such as: --status f"),
        (("quarantine", "list", "--status", "opened"), "such as: --status open"),
        (("runs", "list", "--since", "soon"), "such as: --since 2026-01-31, or --since 24h"),
        (("skip", "p", "--batch", "20260199", "--reason", "x"), "those that wait: ingestkit plan p"),
        (("new", "pipeline", "q", "--from-file=/nowhere.csv"), "--from-file FILE"),
        (
            ("backfill", "p", "--batch", "20260101", "--model", "a"),
            "to put it back on purpose: ingestkit backfill p --batch 20260101 --as-of TIME --reason '...'",
        ),
        (("backfill", "p", "--batch", "20260101"), "ingestkit backfill p --batch 20260101 --model b"),
    ],
    ids=lambda said: " ".join(said) if isinstance(said, tuple) else "",
)
def test_a_refusal_says_what_to_type_instead(world: World, command: tuple[str, ...], hint: str) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    assert hint in world.refused(2, *command).partition("hint: ")[2]
