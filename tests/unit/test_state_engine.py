"""The state database: who waits for whom, what a failure looks like, and which databases are refused."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from ingestkit.errors import ConfigError, StateError
from ingestkit.states import sqlite, tables
from ingestkit.states.engine import StateDatabase

ROW = {"pipeline": "p", "state_id": "s", "token_counter": 0, "floors": {}, "pins": {}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/folder/state.db"


@pytest.fixture
def db(url: str) -> Iterator[StateDatabase]:
    opened = StateDatabase.open(url, 5)
    yield opened
    opened.close()


def pragma(db: StateDatabase, name: str) -> object:
    with db.read() as conn:
        return conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def count(db: StateDatabase) -> int:
    with db.read() as conn:
        return conn.execute(sql.select(sql.func.count()).select_from(tables.pipeline)).scalar_one()


def test_a_commit_survives_a_power_loss_and_readers_do_not_block(db: StateDatabase) -> None:
    shown = {name: pragma(db, name) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}
    assert shown == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_transaction_is_kept_on_leaving_and_gone_after_an_error(db: StateDatabase) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_fail(db)
    assert count(db) == 0
    with db.write() as conn:
        conn.execute(sql.insert(tables.pipeline).values(ROW))
    assert count(db) == 1


def write_and_fail(db: StateDatabase) -> None:
    with db.write() as conn:
        conn.execute(sql.insert(tables.pipeline).values(ROW))
        raise ZeroDivisionError


def test_a_reader_cannot_write(db: StateDatabase) -> None:
    def refused() -> None:
        with pytest.raises(StateError, match="may not be written to"), db.read() as conn:
            conn.execute(sql.insert(tables.pipeline).values(ROW))

    refused()
    with db.write() as conn:
        conn.execute(sql.insert(tables.pipeline).values(ROW))
    refused()
    assert count(db) == 1


def test_a_reader_sees_one_unchanging_view(db: StateDatabase) -> None:
    query = sql.select(sql.func.count()).select_from(tables.pipeline)
    with db.read() as conn:
        before = conn.execute(query).scalar_one()
        with db.write() as other:
            other.execute(sql.insert(tables.pipeline).values(ROW))
        assert (before, conn.execute(query).scalar_one()) == (0, 0)
    assert count(db) == 1


def test_threads_that_read_then_write_lose_no_update(db: StateDatabase) -> None:
    with db.write() as conn:
        conn.execute(sql.insert(tables.pipeline).values(ROW))

    def raise_it() -> None:
        for _ in range(10):
            with db.write() as conn:
                seen = conn.execute(sql.select(tables.pipeline.c.token_counter)).scalar_one()
                conn.execute(sql.update(tables.pipeline).values(token_counter=seen + 1))

    threads = [threading.Thread(target=raise_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as conn:
        assert conn.execute(sql.select(tables.pipeline.c.token_counter)).scalar_one() == 80


def test_a_lock_held_too_long_is_one_clear_line_and_worth_another_try(url: str, db: StateDatabase) -> None:
    impatient = StateDatabase.open(url, 0.05)
    with db.write(), pytest.raises(StateError, match="is locked by another process") as caught, impatient.write():
        pass
    impatient.close()
    assert caught.value.transient
    assert caught.value.exit_code == 7


def test_a_row_that_breaks_a_rule_is_the_callers_to_handle(db: StateDatabase) -> None:
    with pytest.raises(IntegrityError), db.write() as conn:
        conn.execute(sql.insert(tables.pipeline), [ROW, ROW])


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_rows(db: StateDatabase) -> None:
    with db.write() as conn:
        conn.execute(sql.insert(tables.pipeline).values(ROW))
    with db.write() as conn:
        # One page more is what a full disk looks like to the database; the limit stays with the pooled connection.
        conn.exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(StateError, match="the disk is full"), db.write() as conn:
        conn.execute(sql.update(tables.pipeline).values(paused_reason="x" * 10_000_000))
    assert count(db) == 1


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database, whatever it is called\n" * 100)
    with pytest.raises(StateError, match="is not a database") as caught:
        StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 1)
    assert "\n" not in caught.value.message


def test_a_damaged_database_is_one_clear_line(url: str, tmp_path: Path) -> None:
    StateDatabase.open(url, 1).close()
    path = tmp_path / "deep/folder/state.db"
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xa5" * (len(content) - 100))
    with pytest.raises(StateError, match="is damaged"):
        StateDatabase.open(url, 1)


def test_a_folder_in_the_place_of_the_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateError, match="cannot be opened"):
        StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 1)


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="cannot be made"):
        StateDatabase.open(f"sqlite:///{tmp_path}/state/state.db", 1)


def test_the_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    theirs = sqlite3.connect(tmp_path / "theirs.db")
    theirs.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateError, match="not a state of ingestkit"):
        StateDatabase.open(f"sqlite:///{tmp_path}/theirs.db", 1)
    assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    theirs.close()


@pytest.mark.parametrize(
    ("version", "kind", "exit_code", "hint"),
    [
        ("0000", ConfigError, 3, "ingestkit state upgrade"),
        ("9999", StateError, 7, "upgrade ingestkit on this machine"),
        ("a1b2", StateError, 7, "upgrade ingestkit on this machine"),
    ],
)
def test_a_database_of_another_version_is_refused_with_the_cure(
    url: str, version: str, kind: type[ConfigError | StateError], exit_code: int, hint: str
) -> None:
    db = StateDatabase.open(url, 1)
    with db.write() as conn:
        conn.execute(sql.update(tables.version).values(version_num=version))
    db.close()
    with pytest.raises(kind, match=f"is of version {version}") as caught:
        StateDatabase.open(url, 1)
    assert (caught.value.exit_code, caught.value.hint) == (exit_code, hint)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense", "oracle://host/x"])
def test_a_url_that_names_no_state_file_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"state\.url"):
        StateDatabase.open(url, 1)


MOUNTS = """\
/dev/vda / ext4 rw 0 0
filer:/home /home nfs4 rw 0 0
/dev/vdb /home/local xfs rw 0 0
//filer/share /mnt/my\\040share cifs rw 0 0
user@host: /mnt/host fuse.sshfs rw 0 0
tmpfs /over tmpfs rw 0 0
filer:/over /over nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/state.db", "ext4"),
        ("/home/me/state.db", "nfs4"),
        ("/home/local/state.db", "xfs"),
        ("/homeless/state.db", "ext4"),
        ("/mnt/my share/state.db", "cifs"),
        ("/mnt/host/state.db", "fuse.sshfs"),
        ("/over/state.db", "nfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(path: str, kind: str) -> None:
    assert sqlite.file_system_of(Path(path), MOUNTS) == kind


def test_a_state_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "file_system_of", lambda *_: "nfs4")
    with pytest.raises(StateError, match=r"network file system.*nfs4"):
        StateDatabase.open(f"sqlite:///{tmp_path}/state.db", 1)
    assert list(tmp_path.iterdir()) == []


def test_an_ordinary_opening_does_not_import_alembic(url: str) -> None:
    script = (
        "import sys; from ingestkit.states.engine import StateDatabase\n"
        f"for _ in range(2): StateDatabase.open({url!r}, 1).close()\n"
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_processes_that_make_the_state_at_once_all_succeed(url: str) -> None:
    script = (
        "import sys; from ingestkit.states.engine import StateDatabase\n"
        f"sys.stdin.read(1); StateDatabase.open({url!r}, 10).close()"
    )
    started = [subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) for _ in range(4)]
    for process in started:
        assert process.stdin
        process.stdin.write(b"x")
        process.stdin.flush()
    for process in started:
        process.communicate()
    assert [process.returncode for process in started] == [0, 0, 0, 0]


def test_a_connection_is_not_carried_over_a_fork(db: StateDatabase) -> None:
    child = os.fork()
    if child == 0:
        try:
            with db.read():
                pass
        except RuntimeError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
