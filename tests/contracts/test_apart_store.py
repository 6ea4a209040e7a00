"""The contract of stores, of a lake that has what is passing apart; and what lies where."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from ingestkit.errors import LakeError
from ingestkit.lake import PASSING, Lake
from ingestkit.ports import Store
from ingestkit.stores.apart import ApartStore
from ingestkit.stores.local import LocalStore
from tests.contracts.store import CONTENT, NAME, PLACE, StoreContract, fill, names, put, read
from tests.faults.lakes import Listing, Sight, in_a_folder

VALID = "valid/opendata/hcp/20260101/opendata.20260101.1.7/1.parquet"
STAYS = ("rejects/opendata/hcp/20260101/1.parquet", "_runs/opendata/1/gate.json", "raw/opendata/_unmapped/1-x.txt")


def both(folder: Path) -> Listing:
    def opened() -> AbstractContextManager[Callable[[], Iterator[Sight]]]:
        parts = [in_a_folder(folder / part)() for part in ("here", "lake")]
        return nullcontext(partial(_seen, [part.__enter__() for part in parts]))

    return opened


def _seen(parts: list[Callable[[], Iterator[Sight]]]) -> Iterator[Sight]:
    return chain.from_iterable(part() for part in parts)


class TestApartStore(StoreContract):
    early = True
    parts = False
    large = 5_000_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return ApartStore(LocalStore(tmp_path / "here"), LocalStore(tmp_path / "lake"))

    @pytest.fixture
    def second(self, tmp_path: Path) -> Store:
        return ApartStore(LocalStore(tmp_path / "here"), LocalStore(tmp_path / "lake"))

    @pytest.fixture
    def listing(self, tmp_path: Path) -> Listing:
        return both(tmp_path)

    @pytest.fixture
    def opening(self, tmp_path: Path) -> str:
        return (
            "from pathlib import Path; from ingestkit.stores.apart import ApartStore; "
            "from ingestkit.stores.local import LocalStore; "
            f"store = ApartStore(*(LocalStore(Path({str(tmp_path)!r}) / part) for part in ('here', 'lake')))"
        )


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "here")


@pytest.fixture
def below(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


@pytest.fixture
def lake(here: Store, below: Store) -> Lake:
    return Lake(ApartStore(here, below), aside=here)


def test_what_is_passing_lies_here_and_all_else_in_the_lake(lake: Lake, here: Store, below: Store) -> None:
    for name in (NAME, VALID, *STAYS):
        lake.publish(PLACE, name, fill)
    assert names(here) == [NAME, VALID]
    assert names(below) == sorted(STAYS)
    assert names(lake.store) == sorted([NAME, VALID, *STAYS])
    assert [read(lake.store, name) == CONTENT for name in (NAME, *STAYS)] == [True] * 4


def test_what_is_to_stay_lies_in_the_lake_alone_and_is_read_there(lake: Lake, here: Store, below: Store) -> None:
    lake.publish(PLACE, NAME, fill)
    # By whoever was killed over it.
    Lake(below).publish(PLACE, NAME, fill)
    assert names(lake.store) == [NAME]
    for _ in range(2):
        lake.keep(PLACE, NAME)
        assert (names(here), names(below)) == ([], [NAME])
        assert read(lake.store, NAME) == CONTENT
    assert list(lake.store.inflight("_inflight/")) == []
    lake.store.remove(NAME)
    assert names(lake.store) == []


def test_what_lies_in_the_lake_under_the_name_with_other_bytes_is_not_taken_for_it(lake: Lake, below: Store) -> None:
    lake.publish(PLACE, NAME, fill)
    put(below, NAME, b"other")
    with pytest.raises(LakeError, match="with other content"):
        lake.keep(PLACE, NAME)


def test_in_flight_objects_of_either_are_found_and_removed(lake: Lake, here: Store, below: Store) -> None:
    with here.write(f"{PLACE.inflight()}/{PASSING}1-hcp.csv"), below.write(f"{PLACE.inflight()}/gate.json"):
        pass
    assert lake.remove_inflight("opendata", "hcp", below=8) == 2
    assert [*here.inflight("_inflight/"), *below.inflight("_inflight/")] == []


def test_a_lake_that_has_nothing_apart_keeps_all_by_itself(below: Store) -> None:
    lake = Lake(below)
    lake.publish(PLACE, NAME, fill)
    lake.keep(PLACE, NAME)
    assert below.sha256(NAME) == hashlib.sha256(CONTENT).hexdigest()
