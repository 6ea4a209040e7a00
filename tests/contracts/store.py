"""What every store keeps; an adapter inherits the class and gives two handles on one empty store."""

import hashlib
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from ingestkit import steps
from ingestkit.errors import LakeError, ObjectExists
from ingestkit.lake import HashingWriter, Lake, Place
from ingestkit.ports import Store
from tests.faults.lakes import Listing
from tests.faults.sights import watched

PLACE = Place("opendata", "hcp", "opendata.20260101.1", 7)
NAME = "raw/opendata/hcp/20260101/1-hcp.csv"
CONTENT = b"vid__v\n" + b"123456789012345678\n" * 150_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()

CHILD = """
import os, signal
from ingestkit import steps
from ingestkit.lake import Lake
from tests.contracts.store import CONTENT, NAME, PLACE
{opening}

def reached(step):
    if step == {step!r}:
        os.kill(os.getpid(), signal.SIGKILL)

def fill(writer):
    writer.write(CONTENT[:2_000_000])
    writer.flush()
    reached("test.writing")
    writer.write(CONTENT[2_000_000:])

steps.reached = reached
Lake(store).publish(PLACE, NAME, fill)
"""


def put(store: Store, name: str, content: bytes = b"x", inflight: str | None = None) -> None:
    inflight = inflight or f"{PLACE.inflight()}/file"
    with store.write(inflight) as file:
        file.write(content)
    store.publish(inflight, name, hashlib.sha256(content).hexdigest())


def fill(writer: HashingWriter) -> None:
    writer.write(CONTENT)


def read(store: Store, name: str) -> bytes:
    with store.open(name) as file:
        return file.read()


def names(store: Store, prefix: str = "") -> list[str]:
    return [stored.name for stored in store.list(prefix)]


class StoreContract:
    early: ClassVar[bool]
    """Whether what is written is in the store, in flight, before it is published."""
    parts: ClassVar[bool]
    """Whether large objects are sent in parts."""
    large: ClassVar[int]
    """So many bytes are."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def second(self, store: Store) -> Store:
        """Another handle on the same store, as another process has one."""
        raise NotImplementedError

    @pytest.fixture
    def listing(self, store: Store) -> Listing:
        """What readers of the same store see, by other means than ours."""
        raise NotImplementedError

    @pytest.fixture
    def opening(self, store: Store) -> str:
        """Python text that opens the same store as `store`, for a process that is going to be killed."""
        raise NotImplementedError

    def test_a_store_passes_its_check_and_nothing_is_left_of_it(self, store: Store) -> None:
        store.check()
        store.check()
        assert names(store) == []

    def test_more_than_there_is_room_for_is_refused(self, store: Store) -> None:
        store.check()
        store.expect(1000)
        with pytest.raises(LakeError, match="bytes left, and fetching 1,152,921,504,606,846,976 takes about"):
            store.expect(2**60)

    def test_a_published_object_is_read_as_it_was_written(self, store: Store, second: Store) -> None:
        put(store, NAME, CONTENT)
        assert read(second, NAME) == CONTENT
        assert second.path(NAME).read_bytes() == CONTENT
        assert second.sha256(NAME) == hashlib.sha256(CONTENT).hexdigest()
        there = second.stat(NAME)
        assert there is not None
        assert (there.name, there.bytes, there.at.tzinfo is not None) == (NAME, len(CONTENT), True)
        assert list(second.list("")) == [there]
        assert list(second.inflight("_inflight/")) == []

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        put(store, NAME, b"")
        there = store.stat(NAME)
        assert there is not None
        assert there.bytes == 0
        assert store.sha256(NAME) == hashlib.sha256(b"").hexdigest()

    def test_what_is_in_flight_is_seen_by_no_reader(self, store: Store, second: Store) -> None:
        inflight = f"{PLACE.inflight()}/1-hcp.csv"
        with store.write(inflight) as file:
            file.write(CONTENT)
            assert names(second) == []
        assert names(second) == []
        assert second.stat(NAME) is None
        assert list(second.inflight("_inflight/opendata/hcp/")) == [inflight][: self.early]
        assert list(second.inflight("_inflight/opendata/hco/")) == []
        with pytest.raises(LakeError, match="in flight"):
            second.stat(inflight)
        with pytest.raises(LakeError, match="in flight"), second.open(inflight):
            pytest.fail("it was opened")
        with pytest.raises(LakeError, match="in flight"):
            list(second.list("_inflight/"))

    def test_a_write_that_fails_leaves_nothing(self, store: Store) -> None:
        def fail() -> None:
            with store.write(f"{PLACE.inflight()}/1-hcp.csv") as file:
                file.write(b"half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list(store.inflight("_inflight/")) == []
        assert names(store) == []

    def test_a_taken_name_keeps_its_object(self, store: Store, second: Store) -> None:
        put(store, NAME, b"first")
        with pytest.raises(ObjectExists, match=NAME):
            put(second, NAME, b"other")
        assert read(store, NAME) == b"first"
        assert list(store.inflight("_inflight/")) == []

    def test_of_publishers_racing_for_a_name_exactly_one_wins(
        self, store: Store, second: Store, listing: Listing
    ) -> None:
        contents = [str(number).encode() * 100_000 for number in range(4)]

        def publish(handle: Store, content: bytes) -> bytes | None:
            inflight = f"{PLACE.inflight()}/file"
            with handle.write(inflight) as file:
                file.write(content)
            together.wait()
            try:
                handle.publish(inflight, name, hashlib.sha256(content).hexdigest())
            except ObjectExists:
                return None
            return content

        with watched(listing, *contents), ThreadPoolExecutor(4) as pool:
            for attempt in range(25):
                name = f"raw/opendata/hcp/race/{attempt}-file"
                together = threading.Barrier(4)
                won = list(pool.map(publish, [store, second, store, second], contents))
                winners = [content for content in won if content is not None]
                assert len(winners) == 1
                assert read(second, name) == winners[0]
        assert list(store.inflight("_inflight/")) == []

    def test_of_large_objects_sent_at_once_under_one_name_one_wins_whole(
        self, store: Store, second: Store, listing: Listing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever sends in parts waits, with all of them sent, until the other has sent all of his."""
        contents = [bytes([number]) * self.large for number in (1, 2)]
        together = threading.Barrier(2)
        waited: set[tuple[str, int]] = set()

        def reached(step: str) -> None:
            # Who is told to come again sends again, and nobody waits for him.
            mine = (name, threading.get_ident())
            if step == "store.sent" and mine not in waited:
                waited.add(mine)
                together.wait(60)

        def publish(handle: Store, content: bytes) -> bytes | None:
            inflight = f"{PLACE.inflight()}/file"
            with handle.write(inflight) as file:
                file.write(content)
            together.wait(60)
            try:
                handle.publish(inflight, name, hashlib.sha256(content).hexdigest())
            except ObjectExists:
                return None
            return content

        monkeypatch.setattr(steps, "reached", reached)
        with watched(listing, *contents), ThreadPoolExecutor(2) as pool:
            for attempt in range(5):
                name = f"raw/opendata/hcp/20260101/{attempt}-hcp.csv"
                winners = [one for one in pool.map(publish, [store, second], contents) if one is not None]
                assert len(winners) == 1
                second.let_go()
                assert read(second, name) == winners[0]
        assert len(waited) == (10 if self.parts else 0)
        assert list(store.inflight("_inflight/")) == []

    def test_a_listing_at_any_moment_shows_whole_objects_only(self, store: Store, second: Store) -> None:
        contents = {f"raw/opendata/hcp/{number % 7}/{number}": str(number).encode() * 200_000 for number in range(60)}
        done = threading.Event()
        seen = 0

        def publish_all() -> None:
            try:
                for name, content in contents.items():
                    put(store, name, content)
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publish_all)
            last = False
            while not last:
                last = done.is_set()
                for stored in second.list(""):
                    assert stored.bytes == len(contents[stored.name])
                    seen += 1
                for stored in list(second.list(""))[-2:]:
                    assert read(second, stored.name) == contents[stored.name]
            publishing.result()
        assert sorted(names(second)) == sorted(contents)
        assert seen >= len(contents)

    def test_a_listing_survives_what_is_removed_meanwhile(self, store: Store, second: Store) -> None:
        for number in range(20):
            put(store, f"raw/{number % 5}/{number}")
        listing = store.list("raw/")
        first = next(listing).name
        for name in names(second):
            second.remove(name)
        assert {first, *(stored.name for stored in listing)} <= {f"raw/{number % 5}/{number}" for number in range(20)}

    def test_objects_are_listed_in_name_order_and_below_the_prefix_only(self, store: Store) -> None:
        for name in ("raw/a/c", "raw/a", "raw/a-b", "raw/a.b", "raw/ab/c", "_runs/x", "raw/é"):
            if name != "raw/a":
                put(store, name)
        everything = ["_runs/x", "raw/a-b", "raw/a.b", "raw/a/c", "raw/ab/c", "raw/é"]
        assert names(store) == everything
        assert names(store, "raw/") == everything[1:]
        assert names(store, "raw/a/") == ["raw/a/c"]
        assert names(store, "nothing/") == []

    def test_a_removed_object_is_gone_and_removing_it_again_is_no_error(self, store: Store) -> None:
        put(store, NAME)
        put(store, "raw/opendata/hcp/20260108/2-hcp.csv")
        store.remove(NAME)
        store.remove(NAME)
        assert store.stat(NAME) is None
        assert names(store) == ["raw/opendata/hcp/20260108/2-hcp.csv"]
        put(store, NAME, b"again")
        assert read(store, NAME) == b"again"

    @pytest.mark.parametrize("name", ["/etc/passwd", "../x", "raw/../../x", "raw//x", "raw/./x", "", "raw/x/", "a\0b"])
    def test_a_name_that_leads_elsewhere_is_refused(self, store: Store, name: str) -> None:
        inflight = f"{PLACE.inflight()}/file"
        with store.write(inflight) as file:
            file.write(b"x")
        with pytest.raises(LakeError, match="is no name"):
            store.publish(inflight, name, hashlib.sha256(b"x").hexdigest())
        with pytest.raises(LakeError, match="is no name"):
            store.remove(name)
        with pytest.raises(LakeError, match="is no name"), store.open(name):
            pytest.fail("it was opened")
        with pytest.raises(LakeError, match="is no name"), store.write(f"_inflight/../{name}"):
            pytest.fail("it was opened")

    def test_what_is_not_there_is_an_error_that_names_it(self, store: Store) -> None:
        assert store.stat(NAME) is None
        assert store.stat("raw") is None
        with pytest.raises(LakeError, match=NAME), store.open(NAME):
            pytest.fail("it was opened")
        with pytest.raises(LakeError, match=NAME):
            store.path(NAME)
        with pytest.raises(LakeError, match=NAME):
            store.sha256(NAME)

    @pytest.mark.faults
    @pytest.mark.parametrize("step", ["test.writing", "lake.written"])
    def test_a_killed_upload_leaves_nothing_readable(
        self, second: Store, opening: str, listing: Listing, step: str
    ) -> None:
        killed(opening, step, listing)
        assert names(second) == []
        assert second.stat(NAME) is None
        assert len(list(second.inflight("_inflight/opendata/hcp/"))) == self.early
        again = Lake(second).publish(PLACE, NAME, fill)
        assert not again.adopted
        self.is_whole_and_clean(second)

    @pytest.mark.faults
    @pytest.mark.parametrize("step", ["store.linked", "lake.published"])
    def test_an_upload_killed_after_it_appeared_is_whole_and_adopted(
        self, second: Store, opening: str, listing: Listing, step: str
    ) -> None:
        killed(opening, step, listing)
        assert read(second, NAME) == CONTENT
        again = Lake(second).publish(PLACE, NAME, fill)
        assert again.adopted
        self.is_whole_and_clean(second)

    def is_whole_and_clean(self, store: Store) -> None:
        Lake(store).remove_inflight("opendata", "hcp", below=8)
        assert list(store.inflight("_inflight/")) == []
        assert names(store) == [NAME]
        assert read(store, NAME) == CONTENT


def killed(opening: str, step: str, listing: Listing) -> None:
    """Run an upload in a process of its own that is killed when it reaches the step; somebody looks all the time."""
    with watched(listing, CONTENT):
        child = subprocess.run([sys.executable, "-c", CHILD.format(opening=opening, step=step)], check=False)
    assert child.returncode == -signal.SIGKILL
