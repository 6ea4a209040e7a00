"""The lake on a local store: adoption, sidecars, debris, and the writer that hashes."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestkit.errors import LakeError
from ingestkit.lake import HashingWriter, Lake, Place, sidecar_name, token_of
from ingestkit.model import Counts, Sidecar, Stage, Work
from ingestkit.stores.local import LocalStore

PLACE = Place("opendata", "hcp", "nightly/2026 #1", 7)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(LocalStore(tmp_path / "lake"))


def hello(writer: HashingWriter) -> None:
    writer.write(b"hello ")
    writer.write(memoryview(b"world"))


def sidecar(token: int = 7, sequence: int = 1, model: str = "hcp", run_id: str = "nightly/2026 #1") -> Sidecar:
    return Sidecar(
        pipeline="opendata",
        run_id=run_id,
        batch="20260101",
        stage=Stage.EXTRACT,
        model=model,
        token=token,
        sequence=sequence,
        settings="s",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        work=Work(counts=Counts(files=2)),
    )


def in_flight(lake: Lake) -> list[str]:
    return list(lake.store.inflight("_inflight/"))


def test_an_object_is_published_with_the_hash_of_what_went_through(lake: Lake) -> None:
    landed = lake.publish(PLACE, "raw/a", hello)
    assert (landed.bytes, landed.sha256) == (11, hashlib.sha256(b"hello world").hexdigest())
    assert not landed.adopted
    assert lake.store.sha256("raw/a") == landed.sha256
    assert in_flight(lake) == []


def test_an_equal_object_of_that_name_is_adopted(lake: Lake) -> None:
    first = lake.publish(PLACE, "raw/a", hello)
    again = lake.publish(PLACE, "raw/a", hello)
    assert again == replace(first, adopted=True)
    assert in_flight(lake) == []


@pytest.mark.parametrize("other", [b"hello there", b"hello"])
def test_another_object_of_that_name_is_an_error_and_stays(lake: Lake, other: bytes) -> None:
    lake.publish(PLACE, "raw/a", hello)
    with pytest.raises(LakeError, match="raw/a is in the lake already, with other content"):
        lake.publish(PLACE, "raw/a", lambda writer: [writer.write(other)].clear())
    with lake.open("raw/a") as file:
        assert file.read() == b"hello world"
    assert in_flight(lake) == []


def test_what_is_dropped_was_never_seen(lake: Lake) -> None:
    written = lake.write(PLACE, "raw/a", hello)
    assert len(in_flight(lake)) == 1
    lake.drop(written)
    assert in_flight(lake) == []
    assert list(lake.store.list("")) == []


def test_an_object_is_held_with_its_size_only(lake: Lake) -> None:
    lake.publish(PLACE, "raw/a", hello)
    assert lake.holds("raw/a", 11)
    assert not lake.holds("raw/a", 12)
    assert not lake.holds("raw/b", 11)


def test_in_flight_folders_of_lower_tokens_are_removed_and_no_others(lake: Lake) -> None:
    for place in (PLACE, replace(PLACE, token=8), replace(PLACE, model="hco"), replace(PLACE, model="*")):
        lake.write(place, "raw/a", hello)
    assert lake.remove_inflight("opendata", "hcp", below=8) == 1
    assert sorted((name.split("/")[2], token_of(name)) for name in in_flight(lake)) == [
        ("_all", 7),
        ("hco", 7),
        ("hcp", 8),
    ]
    assert lake.remove_inflight("opendata", "*", below=8) == 1


def test_an_empty_in_flight_folder_is_debris_too(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake" / PLACE.inflight()).mkdir(parents=True)
    assert lake.remove_inflight("opendata", "hcp", below=8) == 1
    assert in_flight(lake) == []


@pytest.mark.parametrize("run_id", ["r", "opendata.20260101.1", "a.1.b", "1.2.3.abcdefabcdef", "\N{SNOWMAN}/.."])
def test_the_token_is_read_back_from_the_name_whatever_the_run_is_called(run_id: str) -> None:
    place = Place("opendata", "hcp", run_id, 42)
    assert token_of(place.inflight()) == 42
    assert token_of(f"{place.inflight()}/12.13.csv") == 42


def test_what_is_not_named_as_in_flight_is_an_error_that_names_it() -> None:
    with pytest.raises(LakeError, match="_inflight/opendata/hcp/notes"):
        token_of("_inflight/opendata/hcp/notes")


def test_sidecars_come_back_whole_and_oldest_first(lake: Lake) -> None:
    later, first = sidecar(token=10, sequence=1), sidecar(token=9, sequence=12)
    every = sidecar(token=11, model="*")
    for one in (later, every, first, sidecar(run_id="other")):
        lake.write_sidecar(PLACE, one)
    assert list(lake.sidecars("opendata", "nightly/2026 #1")) == [first, later, every]
    assert len(list(lake.sidecars("opendata"))) == 4
    assert list(lake.sidecars("another")) == []


def test_a_sidecar_that_is_none_is_named(lake: Lake) -> None:
    name = sidecar_name(sidecar())
    lake.publish(PLACE, name, hello)
    with pytest.raises(LakeError, match="is no sidecar"):
        list(lake.sidecars("opendata"))


def test_names_hold_what_callers_chose_safely(lake: Lake) -> None:
    raw = lake.raw_name("opendata", "hcp", "2026/01", "f00d", "2026/01/US hcp\n.csv", 7)
    made = lake.made_name("valid", PLACE, "2026-01", "f00d.parquet")
    assert raw.startswith("raw/opendata/hcp/2026-01-")
    assert "/f00d-US-hcp-.csv-" in raw
    assert made.startswith("valid/opendata/hcp/2026-01/nightly-2026--1-")
    assert made.endswith(".7/f00d.parquet")
    assert " " not in raw + made


def test_a_layout_decides_the_folders_and_nothing_else(lake: Lake) -> None:
    dated = replace(lake, layout="batch={year}-{month}/{batch}/model={model}")
    raw = dated.raw_name("opendata", "hcp", "2026-01-12", "f00d", "2026-01-12/hcp.csv", 7)
    made = dated.made_name("rejects", PLACE, "2026-01-12", "f00d.parquet")
    assert raw == "raw/opendata/batch=2026-01/2026-01-12/model=hcp/f00d-hcp.csv"
    assert made.startswith("rejects/opendata/batch=2026-01/2026-01-12/model=hcp/nightly-")
    assert made.endswith(".7/f00d.parquet")


def test_what_is_of_a_batch_is_found_in_every_layout_there_was(lake: Lake) -> None:
    names = set()
    for template in (lake.layout, "m={model}/{batch}", "{batch}/of/{model}"):
        laid = replace(lake, layout=template)
        laid.note_layout(PLACE)
        laid.note_layout(PLACE)
        for name in (
            laid.raw_name("opendata", "hcp", "20260101", "f00d", "hcp.csv", 7),
            laid.raw_name("opendata", "hco", "20260101", "f00d", "hco.csv", 7),
            laid.raw_name("opendata", "hcp", "20260108", "f00d", "hcp.csv", 7),
        ):
            lake.publish(PLACE, name, hello)
        names.add(laid.raw_name("opendata", "hcp", "20260101", "f00d", "hcp.csv", 7))
    assert set(lake.of_batch("raw", "opendata", "hcp", "20260101")) == names
    assert len(names) == 3
    assert set(lake.of_batch("raw", "another", "hcp", "20260101")) == set()


def test_what_lies_deeper_is_of_another_layout_and_another_batch(lake: Lake) -> None:
    deeper = replace(lake, layout="hcp/{model}/{batch}")
    lake.publish(PLACE, deeper.raw_name("opendata", "hco", "20260101", "f00d", "hco.csv", 7), hello)
    lake.publish(PLACE, deeper.made_name("valid", replace(PLACE, model="hco"), "20260101", "f00d.parquet"), hello)
    assert list(lake.of_batch("raw", "opendata", "hcp", "hco")) == []
    assert list(lake.of_batch("valid", "opendata", "hcp", "hco")) == []
