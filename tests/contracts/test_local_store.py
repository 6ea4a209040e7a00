"""The local store keeps the contract of stores, and what a local disk can do to it."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestkit.errors import LakeError
from ingestkit.lake import Lake
from ingestkit.ports import Store
from ingestkit.stores.local import LocalStore
from tests.contracts.store import CONTENT, DIGEST, NAME, PLACE, StoreContract, names, put
from tests.faults.lakes import Listing, in_a_folder

FULL = """
import sys
from pathlib import Path
from ingestkit.errors import LakeError
from ingestkit.lake import Lake
from ingestkit.stores.local import LocalStore
from tests.contracts.store import NAME, PLACE, fill, names
store = LocalStore(Path(sys.argv[1]))
try:
    Lake(store).publish(PLACE, NAME, fill)
except LakeError as error:
    print(error.message, error.hint, error.transient, names(store), list(store.inflight("_inflight/")), sep="|")
"""


class TestLocalStore(StoreContract):
    early = True
    parts = False
    large = 5_000_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "lake")

    @pytest.fixture
    def second(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "lake")

    @pytest.fixture
    def listing(self, tmp_path: Path) -> Listing:
        return in_a_folder(tmp_path / "lake")

    @pytest.fixture
    def opening(self, tmp_path: Path) -> str:
        return (
            "from pathlib import Path; from ingestkit.stores.local import LocalStore; "
            f"store = LocalStore(Path({str(tmp_path / 'lake')!r}))"
        )

    def test_who_was_taken_over_cannot_publish(self, store: Store, second: Store) -> None:
        inflight = f"{PLACE.inflight()}/1-hcp.csv"
        with store.write(inflight) as file:
            file.write(CONTENT)
        assert Lake(second).remove_inflight("opendata", "hcp", below=8) == 1
        with pytest.raises(LakeError, match="another owner"):
            store.publish(inflight, NAME, DIGEST)
        assert names(second) == []

    def test_who_was_taken_over_while_writing_cannot_publish(self, store: Store, second: Store) -> None:
        inflight = f"{PLACE.inflight()}/1-hcp.csv"

        def write_and_publish() -> None:
            with store.write(inflight) as file:
                file.write(CONTENT)
                second.remove(inflight)
            store.publish(inflight, NAME, DIGEST)

        with pytest.raises(LakeError, match="another owner"):
            write_and_publish()
        assert names(second) == []

    def test_nothing_but_the_object_is_left_on_disk(self, store: Store, tmp_path: Path) -> None:
        put(store, NAME, CONTENT)
        assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file()] == [tmp_path / "lake" / NAME]
        store.remove(NAME)
        assert sorted(path.name for path in (tmp_path / "lake").iterdir()) == ["_inflight"]

    def test_a_folder_pruned_while_it_is_published_into_is_made_again(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link
        pruned: list[Path] = []

        def prune_first(source: Path, target: Path, *, follow_symlinks: bool) -> None:
            if not pruned:
                pruned.append(tmp_path / "lake" / "raw")
                shutil.rmtree(pruned[0])
            link(source, target, follow_symlinks=follow_symlinks)

        monkeypatch.setattr(os, "link", prune_first)
        put(store, NAME)
        assert names(store) == [NAME]

    def test_a_folder_pruned_while_it_is_made_is_made_again(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mkdir = os.mkdir
        pruned: list[str] = []

        def there_and_gone(path: Path, mode: int = 0o777) -> None:
            if path.name in ("_inflight", "raw") and path.name not in pruned:
                pruned.append(path.name)
                raise FileExistsError(errno.EEXIST, "File exists", str(path))
            mkdir(path, mode)

        monkeypatch.setattr(os, "mkdir", there_and_gone)
        put(store, NAME)
        assert pruned == ["_inflight", "raw"]
        assert names(store) == [NAME]

    def test_a_file_where_a_folder_belongs_is_named(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "lake").mkdir()
        (tmp_path / "lake" / "raw").write_bytes(b"")
        with pytest.raises(LakeError, match=r"lake/raw.* is a file where lake .* needs a folder"):
            put(store, NAME)

    def test_a_lake_that_is_a_file_fails_its_check(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(LakeError, match=r"is a file where lake .* needs a folder"):
            LocalStore(tmp_path / "file").check()

    def test_a_disk_that_cannot_link_fails_the_check(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def link(source: Path, target: Path, *, follow_symlinks: bool) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(LakeError, match="cannot link"):
            store.check()

    def test_what_a_killed_check_left_is_removed_by_a_later_one_when_it_is_old(
        self, store: Store, tmp_path: Path
    ) -> None:
        store.check()
        [folder] = tmp_path.rglob("_inflight/_check")
        old, young = folder / "0123456789ab", folder / "ba9876543210"
        for path in (old, young):
            path.write_bytes(b"ingestkit")
        os.utime(old, (time.time() - 3700, time.time() - 3700))
        store.check()
        assert list(folder.iterdir()) == [young]

    def test_the_bytes_are_durable_before_the_name_and_the_name_before_the_end(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        sync, link = os.fsync, os.link

        def syncing(handle: int) -> None:
            told.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
            sync(handle)

        def linking(source: Path, target: Path, *, follow_symlinks: bool) -> None:
            told.append("link")
            link(source, target, follow_symlinks=follow_symlinks)

        monkeypatch.setattr(os, "fsync", syncing)
        monkeypatch.setattr(os, "link", linking)
        put(store, "raw/a/1")
        assert told == ["sync file", "sync lake", "sync raw", "link", "sync a"]

    @pytest.mark.faults
    def test_a_full_disk_is_one_clear_line_and_leaves_nothing(self, tmp_path: Path) -> None:
        small = 'mount -t tmpfs -o size=1m none "$1" && "$2" -c "$3" "$1"'
        command = [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            small,
            "sh",
            str(tmp_path),
            sys.executable,
            FULL,
        ]
        if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
            pytest.skip("a small disk needs unprivileged mounts, which this machine does not allow")
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split("|")
        assert told[0] == f"no space left in lake {tmp_path} while writing {told[0].rsplit(' ', 1)[-1]}"
        assert told[0].endswith("/passing-1-hcp.csv")
        assert f"df -h {tmp_path}" in told[1]
        assert told[2:] == ["False", "[]", "[]"]


class TestWithoutRights:
    """A superuser may write everywhere, so this gives up that right for a while."""

    @pytest.fixture
    def root(self) -> Iterator[Path]:
        root = Path(tempfile.mkdtemp(prefix="lake-"))
        superuser = os.geteuid() == 0
        if superuser:
            os.chown(root, 65534, 65534)
            os.seteuid(65534)
        root.chmod(0o500)
        yield root
        if superuser:
            os.seteuid(0)
        root.chmod(0o700)
        shutil.rmtree(root)

    def test_a_lake_one_may_not_write_to_is_one_clear_line(self, root: Path) -> None:
        store = LocalStore(root)
        with pytest.raises(LakeError, match=f"no permission in lake {root} while checking it") as caught:
            store.check()
        assert caught.value.hint == f"look at the rights: ls -ld {root}/_inflight"
        with pytest.raises(LakeError, match="no permission"), store.write(f"{PLACE.inflight()}/file"):
            pytest.fail("it was opened")
