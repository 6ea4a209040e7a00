"""What every source of files keeps; an adapter inherits the class and gives it a drop to fill."""

import random
import struct
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

import pytest

from ingestkit.errors import ConfigError, NotArrived, SourceError
from ingestkit.model import Item, Window
from ingestkit.ports import Source
from ingestkit.settings import Batches, Model
from ingestkit.settings import Source as SourceSettings
from tests.contracts.zipped import relisted, renamed, zipped

NOON = datetime(2026, 1, 7, 12, 0, 0, 123456, tzinfo=UTC)
FOLDERS = Batches(folders=r"(?P<batch>\d{8}_\d{6})")
FIRST, SECOND = "20260101_000000", "20260108_000000"
WINDOWS = Batches.model_validate(
    {
        "folders": r"(?:\w+/)?(?P<at>\d{4}-\d\d-\d\d)",
        "at": {"format": "%Y-%m-%d"},
        "window": "daily",
        "timezone": "Europe/Berlin",
        "start": "2026-01-01",
    }
)


def day(number: int) -> Window:
    """A day of January 2026 in Berlin."""
    begins = datetime(2026, 1, number, tzinfo=UTC) - timedelta(hours=1)
    return Window(begins, begins + timedelta(days=1))


class Drop(Protocol):
    """Where an adapter reads from, as a test fills it."""

    @property
    def root(self) -> Path:
        """Where the files lie on this machine."""
        ...

    def put(self, path: str, content: bytes = b"x", at: datetime = NOON) -> None:
        """Make or overwrite a file with its folders, and give it this modification time."""
        ...

    def folder(self, path: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def source(self, settings: SourceSettings, models: dict[str, Model]) -> Source: ...

    def missing(self, settings: SourceSettings, models: dict[str, Model]) -> Source:
        """A source whose root is not there."""
        ...


def models(**files: str | None) -> dict[str, Model]:
    return {name: Model.model_validate({"files": one, "columns": {"id": {}}}) for name, one in files.items()}


def settings(batches: Batches = FOLDERS, **more: object) -> SourceSettings:
    return SourceSettings.model_validate({"connection": "drop", "batches": batches.model_dump(), **more})


class SourceContract:
    noon: ClassVar[datetime] = NOON
    """The time as the adapter tells it; some tell whole seconds."""

    @pytest.fixture
    def drop(self) -> Drop:
        raise NotImplementedError

    @pytest.fixture
    def source(self, drop: Drop) -> Source:
        return drop.source(settings(), models(hcp=None, hco=None))

    def keys(self, drop: Drop, batches: Batches, after: str | None = None) -> list[str]:
        return list(drop.source(settings(batches), models(hcp=None)).batches(after))

    def test_batches_come_oldest_first_and_only_those_after_the_checkpoint(self, drop: Drop, source: Source) -> None:
        drop.put(f"{SECOND}/hcp.csv")
        drop.put(f"{FIRST}/hcp.csv")
        drop.put("elsewhere/hcp.csv")
        drop.put("20260109_000000")
        assert list(source.batches(None)) == [FIRST, SECOND]
        assert list(source.batches(FIRST)) == [SECOND]
        assert list(source.batches(SECOND)) == []

    def test_an_empty_folder_is_a_batch_without_items(self, drop: Drop, source: Source) -> None:
        drop.folder(FIRST)
        assert list(source.batches(None)) == [FIRST]
        assert list(source.items(FIRST)) == []

    @pytest.mark.parametrize(
        ("kind", "names", "expected"),
        [
            ("integer", ["export_10", "export_9", "export_0007"], ["7", "9", "10"]),
            ("hex", ["export_ff", "export_0A", "export_100"], ["a", "ff", "100"]),
            ("date", ["export_20260108", "export_2025-12-31"], ["2025-12-31", "2026-01-08"]),
            ("text", ["export_10", "export_9"], ["10", "9"]),
        ],
    )
    def test_keys_sort_by_their_kind_and_are_written_one_way(
        self, drop: Drop, kind: str, names: list[str], expected: list[str]
    ) -> None:
        for name in names:
            drop.put(f"{name}/hcp.csv")
        batches = Batches.model_validate({"folders": "export_(?P<batch>.+)", "kind": kind})
        assert self.keys(drop, batches) == expected
        assert self.keys(drop, batches, after=expected[0]) == expected[1:]

    @pytest.mark.parametrize(("kind", "name"), [("integer", "1x"), ("hex", "xyz"), ("date", "20260230")])
    def test_a_key_that_is_not_of_its_kind_is_an_error_naming_the_folder(
        self, drop: Drop, kind: str, name: str
    ) -> None:
        drop.put(f"{name}/hcp.csv")
        with pytest.raises(SourceError, match=name):
            self.keys(drop, Batches.model_validate({"folders": "(?P<batch>.+)", "kind": kind}))

    def test_a_checkpoint_of_another_kind_is_a_mistake_in_the_settings(self, drop: Drop) -> None:
        drop.put("7/hcp.csv")
        with pytest.raises(ConfigError, match="'abc'"):
            self.keys(drop, Batches.model_validate({"folders": "(?P<batch>.+)", "kind": "integer"}), after="abc")

    def test_batches_may_lie_deeper_and_in_several_folders(self, drop: Drop) -> None:
        drop.put("us/2026/01/hcp.csv")
        drop.put("de/2026/01/hcp.csv")
        drop.put("de/2026/02/hcp.csv")
        source = drop.source(settings(Batches(folders=r"[a-z]+/2026/(?P<batch>\d\d)")), models(hcp=None))
        assert list(source.batches(None)) == ["01", "02"]
        assert [item.path for item in source.items("01")] == ["de/2026/01/hcp.csv", "us/2026/01/hcp.csv"]

    def test_a_batch_can_be_told_from_file_names(self, drop: Drop) -> None:
        drop.put("in/hcp_20260101.csv")
        drop.put("in/hco_20260101.csv")
        drop.put("in/hcp_20260108.csv")
        drop.put("in/readme.md")
        batches = Batches.model_validate({"files": r"in/\w+_(?P<batch>\d{8})\.csv", "kind": "date"})
        source = drop.source(settings(batches), models(hcp=None, hco=None))
        assert list(source.batches(None)) == ["2026-01-01", "2026-01-08"]
        assert [(item.path, item.models) for item in source.items("2026-01-01")] == [
            ("in/hco_20260101.csv", ("hco",)),
            ("in/hcp_20260101.csv", ("hcp",)),
        ]

    def paths(self, source: Source, window: Window) -> list[str]:
        return [item.path for item in source.items(window.key, window)]

    def test_what_belongs_to_a_window_is_told_by_the_times_in_paths(self, drop: Drop) -> None:
        for path in ("2026-01-07/hcp.csv", "us/2026-01-07/hcp.csv", "us/2026-01-08/hcp.csv", "hcp.csv"):
            drop.put(path)
        source = drop.source(settings(WINDOWS), models(hcp=None))
        assert self.paths(source, day(7)) == ["2026-01-07/hcp.csv", "us/2026-01-07/hcp.csv"]
        assert self.paths(source, day(8)) == ["us/2026-01-08/hcp.csv"]
        assert self.paths(source, day(9)) == []
        assert self.paths(source, Window(day(7).start, day(8).end)) == [
            *("2026-01-07/hcp.csv", "us/2026-01-07/hcp.csv", "us/2026-01-08/hcp.csv")
        ]
        assert {item.batch for item in source.items(day(7).key, day(7))} == {"20260106T230000Z"}

    def test_the_first_instant_is_in_a_window_and_the_last_in_the_next(self, drop: Drop) -> None:
        names = ["in/a_20260106T225959Z.csv", "in/a_20260106T230000Z.csv", "in/a_20260108T000000+0100.csv"]
        for name in names:
            drop.put(name)
        said = {"folders": None, "files": r"in/a_(?P<at>.+)\.csv", "at": {"format": "%Y%m%dT%H%M%S%z"}}
        batches = Batches.model_validate({**WINDOWS.model_dump(), **said})
        source = drop.source(settings(batches), models(a="a_.*"))
        assert [self.paths(source, day(number)) for number in (6, 7, 8)] == [[names[0]], [names[1]], [names[2]]]

    def test_a_file_that_comes_into_a_window_later_is_seen(self, drop: Drop) -> None:
        drop.put("2026-01-07/hcp.csv")
        source = drop.source(settings(WINDOWS), models(hcp=None))
        assert len(self.paths(source, day(7))) == 1
        drop.put("us/2026-01-07/hcp.csv")
        assert len(self.paths(source, day(7))) == 2

    def test_a_time_that_is_none_is_an_error_naming_the_path(self, drop: Drop) -> None:
        drop.put("2026-02-30/hcp.csv")
        with pytest.raises(SourceError, match="2026-02-30 matches the pattern of windows, but"):
            self.paths(drop.source(settings(WINDOWS), models(hcp=None)), day(7))

    def test_items_are_all_files_below_the_batch_in_path_order(self, drop: Drop, source: Source) -> None:
        for path in ("hcp.csv", "a/b/hco.csv", "a.txt", "a-b.txt"):
            drop.put(f"{FIRST}/{path}", b"12345")
        drop.put(f"{SECOND}/hcp.csv")
        expected = [f"{FIRST}/{path}" for path in ("a-b.txt", "a.txt", "a/b/hco.csv", "hcp.csv")]
        assert [item.path for item in source.items(FIRST)] == expected
        assert {(item.batch, item.size, item.mtime, item.ready) for item in source.items(FIRST)} == {
            (FIRST, 5, self.noon, True)
        }

    def test_what_is_ignored_is_no_item(self, drop: Drop, source: Source) -> None:
        for name in ("hcp.csv", ".hcp.csv.swp", "hcp.csv.part", "hcp.csv.tmp", "hcp.csv~", ".hidden/hcp.csv"):
            drop.put(f"{FIRST}/{name}")
        assert [item.path for item in source.items(FIRST)] == [f"{FIRST}/hcp.csv"]

    def test_a_file_of_no_model_is_listed(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/notes.docx")
        assert [(item.path, item.models) for item in source.items(FIRST)] == [(f"{FIRST}/notes.docx", ())]

    @pytest.mark.parametrize(
        "name",
        [
            "parent_hco.csv",
            "PARENT_HCO.CSV",
            "ParentHCO.csv",
            "US_parent_hco.csv",
            "parent_hco_20260101.csv",
            "parent_hco_20260101_235959.csv",
            "parent_hco-2026-01-01.csv",
            "parent_hco_20260101T120000Z.txt",
            "parent_hco_full.csv",
            "US_PARENT_HCO_FULL_20260101.csv.gz",
            "ParentHCOs.csv",
        ],
    )
    def test_a_model_knows_its_files_by_its_name(self, drop: Drop, name: str) -> None:
        drop.put(f"{FIRST}/{name}")
        source = drop.source(settings(), models(parent_hco=None, hco=None))
        assert [item.models for item in source.items(FIRST)] == [("parent_hco",)]

    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("address", "ADDRESSES.csv"),
            ("addresses", "address.csv"),
            ("country", "countries.csv"),
            ("licenses", "US_LICENSE_20260101.csv"),
            ("batches", "batch.csv"),
            ("customer_status", "customer-statuses.csv"),
        ],
    )
    def test_one_or_many_is_the_same_model(self, drop: Drop, model: str, name: str) -> None:
        drop.put(f"{FIRST}/{name}")
        source = drop.source(settings(), models(**{model: None}))
        assert [item.models for item in source.items(FIRST)] == [(model,)]

    @pytest.mark.parametrize("name", ["RELATION.csv", "relations_20260101.csv", "PARENTHCO.csv", "us_old_name.csv"])
    def test_a_model_goes_by_its_other_names_too(self, drop: Drop, name: str) -> None:
        drop.put(f"{FIRST}/{name}")
        known = models(parenthco=None)
        known = {"parenthco": known["parenthco"].model_copy(update={"names": ("RELATION", "OLD NAME")})}
        source = drop.source(settings(), known)
        assert [item.models for item in source.items(FIRST)] == [("parenthco",)]

    @pytest.mark.parametrize("name", ["hcp_delta.csv", "hcpx.csv", "xhcp.csv", "hcp.xlsx", "hcp", "hcp_address.csv"])
    def test_a_model_does_not_claim_what_may_be_something_else(self, drop: Drop, name: str) -> None:
        drop.put(f"{FIRST}/{name}")
        source = drop.source(settings(), models(hcp=None))
        assert [item.models for item in source.items(FIRST)] == [()]

    def test_a_name_as_it_is_said_goes_before_one_of_another_number(self, drop: Drop) -> None:
        for name in ("sale.csv", "SALES_20260101.csv", "as.csv"):
            drop.put(f"{FIRST}/{name}")
        source = drop.source(settings(), models(sale=None, sales=None, a=None))
        assert {item.path.rpartition("/")[2]: item.models for item in source.items(FIRST)} == {
            "sale.csv": ("sale",),
            "SALES_20260101.csv": ("sales",),
            "as.csv": (),
        }

    def test_a_pattern_of_ones_own_takes_the_place_of_the_name(self, drop: Drop) -> None:
        drop.put(f"{FIRST}/people.dat")
        drop.put(f"{FIRST}/hcp.csv")
        source = drop.source(settings(), models(hcp=r"(?i)PEOPLE\.dat"))
        assert [item.models for item in source.items(FIRST)] == [(), ("hcp",)]

    def test_two_models_claiming_one_file_are_a_mistake_that_names_both(self, drop: Drop) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        source = drop.source(settings(), models(hcp=None, person=r"hc.*"))
        with pytest.raises(ConfigError, match=rf"hcp and person both claim {FIRST}/hcp.csv"):
            list(source.items(FIRST))

    @pytest.mark.parametrize("name", ["a\nb.csv", 'it\'s "so".csv', "médecin ☤.csv", "a;b|c$d`e\\f.csv", "%41.csv"])
    def test_an_odd_name_is_a_name_like_any_other(self, drop: Drop, source: Source, name: str) -> None:
        drop.put(f"{FIRST}/{name}", b"odd")
        (item,) = source.items(FIRST)
        assert item.path == f"{FIRST}/{name}"
        with source.open(item) as stream:
            assert stream.read() == b"odd"

    def test_what_came_since_the_last_look_is_seen(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        assert list(source.batches(None)) == [FIRST]
        assert len(list(source.items(FIRST))) == 1
        drop.put(f"{FIRST}/hco.csv")
        drop.put(f"{SECOND}/hco.csv")
        assert len(list(source.items(FIRST))) == 2
        assert len(list(source.items(SECOND))) == 1

    def test_a_batch_that_is_not_there_is_an_error(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        with pytest.raises(SourceError, match=SECOND) as caught:
            list(source.items(SECOND))
        assert not caught.value.transient

    def test_an_item_is_read_as_it_is(self, drop: Drop, source: Source) -> None:
        content = bytes(range(256)) * 9000
        drop.put(f"{FIRST}/hcp.csv", content)
        with source.open(self.item(source)) as stream:
            assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == content

    def test_a_file_longer_than_it_was_is_not_taken(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv", b"12345")
        with pytest.raises(SourceError, match="changed while it was read") as caught:
            self.read(source, lambda: drop.put(f"{FIRST}/hcp.csv", b"1234567"))
        assert caught.value.transient

    def test_a_file_of_another_time_is_not_taken(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv", b"12345")
        with pytest.raises(SourceError, match="changed while it was read") as caught:
            self.read(source, lambda: drop.put(f"{FIRST}/hcp.csv", b"54321", NOON + timedelta(seconds=2)))
        assert caught.value.transient

    def test_a_file_that_changed_before_it_was_opened_is_not_read_at_all(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv", b"12345")
        item = self.item(source)
        drop.put(f"{FIRST}/hcp.csv", b"123456")
        with pytest.raises(SourceError, match="changed") as caught, source.open(item):
            pytest.fail("it was opened")
        assert caught.value.transient

    def test_a_file_taken_away_while_it_was_read_is_not_taken(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        with pytest.raises(SourceError, match="changed while it was read") as caught:
            self.read(source, lambda: drop.remove(f"{FIRST}/hcp.csv"))
        assert caught.value.transient

    def test_a_missing_item_is_an_error_that_names_it(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        item = self.item(source)
        drop.remove(f"{FIRST}/hcp.csv")
        with pytest.raises(SourceError, match=f"{FIRST}/hcp.csv"), source.open(item):
            pytest.fail("it was opened")

    def test_a_readers_own_error_stays_what_it_is(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        with pytest.raises(ZeroDivisionError), source.open(self.item(source)):
            raise ZeroDivisionError

    @pytest.mark.parametrize(
        ("marker", "here"), [("{name}.done", "hcp.csv.done"), ("{stem}.ok", "hcp.ok"), ("_DONE", "_DONE")]
    )
    def test_a_file_is_not_read_before_its_marker_has_come(self, drop: Drop, marker: str, here: str) -> None:
        source = drop.source(settings(settle={"marker": marker}), models(hcp=None))
        drop.put(f"{FIRST}/hcp.csv")
        [item] = source.items(FIRST)
        assert (item.ready, item.waits_for) == (False, f"its marker {FIRST}/{here} has not come")
        drop.put(f"{FIRST}/{here}", b"")
        [item] = source.items(FIRST)
        assert (item.path, item.ready) == (f"{FIRST}/hcp.csv", True)

    def test_markers_lie_beside_files_that_are_batches(self, drop: Drop) -> None:
        batches = Batches(files=r"in/hcp_(?P<batch>\d+)\.csv")
        source = drop.source(settings(batches, settle={"marker": "{name}.done"}), models(hcp=r"hcp_.*"))
        drop.put("in/hcp_1.csv")
        drop.put("in/hcp_2.csv")
        drop.put("in/hcp_2.csv.done", b"")
        drop.put("in/hcp_2.csv.md5", b"9dd4e461268c8034f5c8564e155c67a6")
        assert list(source.batches(None)) == ["1", "2"]
        assert [item.ready for batch in ("1", "2") for item in source.items(batch)] == [False, True]
        assert list(source.strays()) == []
        with source.open(next(iter(source.items("2")))) as stream:
            assert stream.read() == b"x"

    @pytest.mark.parametrize(
        "said",
        [
            ("hcp.csv.sha256", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
            ("hcp.csv.md5", "9DD4E461268C8034F5C8564E155C67A6 *hcp.csv\r\n"),
            ("hcp.csv.md5", "MD5 (hcp.csv) = 9dd4e461268c8034f5c8564e155c67a6\n"),
            ("hcp.csv.md5", f"{'0' * 32}  hcp.csv.old\n9dd4e461268c8034f5c8564e155c67a6  ./out/hcp.csv\n"),
        ],
    )
    def test_a_file_is_compared_with_the_checksum_beside_it(self, drop: Drop, said: tuple[str, str]) -> None:
        source = drop.source(settings(settle={"checksum": "required"}), models(hcp=None))
        drop.put(f"{FIRST}/hcp.csv")
        [item] = source.items(FIRST)
        assert "its checksum has not come (hcp.csv.sha256, hcp.csv.md5)" in str(item.waits_for)
        drop.put(f"{FIRST}/{said[0]}", said[1].encode())
        [item] = source.items(FIRST)
        assert item.ready
        with source.open(item) as stream:
            assert stream.read(1) == b"x"
        drop.put(f"{FIRST}/hcp.csv", b"y")
        with pytest.raises(SourceError, match=f"hcp.csv is not what {said[0]} says"), source.open(item) as stream:
            stream.read()
        with source.open(item):
            pass

    def test_a_checksum_file_that_names_none_is_an_error(self, drop: Drop) -> None:
        source = drop.source(settings(), models(hcp=None))
        drop.put(f"{FIRST}/hcp.csv")
        drop.put(f"{FIRST}/hcp.csv.md5", b"soon")
        [item] = source.items(FIRST)
        with pytest.raises(SourceError, match=r"names no checksum of hcp\.csv"), source.open(item) as stream:
            stream.read()

    def test_an_archive_is_compared_with_the_checksum_beside_it(self, drop: Drop) -> None:
        source = drop.source(settings(settle={"quiet": "0s"}), models(hcp=None))
        drop.put(f"{FIRST}/all.zip", zipped({"hcp.csv": b"x"}))
        drop.put(f"{FIRST}/all.zip.md5", b"0" * 32)
        with pytest.raises(SourceError, match=r"all\.zip is not what all\.zip\.md5 says"):
            list(source.items(FIRST))

    def test_a_member_is_compared_with_the_checksum_beside_it_in_its_archive(self, drop: Drop) -> None:
        source = drop.source(settings(), models(hcp=None))
        said = {"in/hcp.csv.md5": b"9dd4e461268c8034f5c8564e155c67a6  hcp.csv\n"}
        drop.put(f"{FIRST}/one.zip", zipped({"in/hcp.csv": b"x", **said}))
        drop.put(f"{FIRST}/two.zip", zipped({"in/hcp.csv": b"y", **said}))
        one, two = source.items(FIRST)
        assert (one.path, one.checksum) == (f"{FIRST}/one.zip!in/hcp.csv", f"{FIRST}/one.zip!in/hcp.csv.md5")
        with source.open(one) as stream:
            assert stream.read() == b"x"
        unlike = r"two\.zip!in/hcp\.csv is not what hcp\.csv\.md5 says"
        with pytest.raises(SourceError, match=unlike), source.open(two) as stream:
            stream.read()

    @pytest.mark.parametrize(
        ("report", "at", "of"),
        [
            ("{stem}.json", "all.json", "all.zip"),
            ("{name}.json", "all.zip.json", "all.zip"),
            ("job.json", "job.json", ""),
            ("{stem}.json", "all.zip!in/all.json", "all.zip"),
            ("job.json", "all.zip!job.json", "all.zip"),
        ],
    )
    def test_a_report_says_how_much_there_is_and_is_waited_for(self, drop: Drop, report: str, at: str, of: str) -> None:
        asked = settings(totals={"report": report, "counts": "job.counts"}, settle={"quiet": "0s"})
        source = drop.source(asked, models(hcp=None, hco=None))
        content = b'\xef\xbb\xbf{"job": {"counts": {"HCP": 12, "hcps": "3", "OTHER": 0}}}'
        drop.put(f"{FIRST}/all.zip", zipped({"hcp.csv": b"x", "readme.md": b""}))
        items = list(source.items(FIRST))
        # What is of no model is counted by nobody, and kept without it.
        assert [(item.models, item.ready) for item in items] == [(("hcp",), False), ((), True)]
        assert "its report" in str(items[0].waits_for)
        assert list(source.announced(FIRST)) == []
        archive, _, within = at.partition("!")
        if within:
            drop.put(f"{FIRST}/all.zip", zipped({"hcp.csv": b"x", within: content, "readme.md": b""}))
        else:
            drop.put(f"{FIRST}/{archive}", content)
        items = list(source.items(FIRST))
        assert [(item.path, item.ready) for item in items] == [
            (f"{FIRST}/all.zip!hcp.csv", True),
            (f"{FIRST}/all.zip!readme.md", True),
        ]
        [said] = source.announced(FIRST)
        assert (said.report, said.of) == (f"{FIRST}/{at}", f"{FIRST}/{of}".rstrip("/"))
        assert (said.counts, said.models) == ({"HCP": 12, "hcps": 3, "OTHER": 0}, {"HCP": "hcp", "hcps": "hcp"})
        assert list(source.strays()) == []

    def test_a_report_is_compared_with_the_checksum_beside_it(self, drop: Drop) -> None:
        source = drop.source(settings(totals={"report": "{stem}.json", "counts": "n"}), models(hcp=None))
        drop.put(f"{FIRST}/hcp.csv")
        drop.put(f"{FIRST}/hcp.json", b'{"n": {"hcp": 1}}')
        drop.put(f"{FIRST}/hcp.json.md5", b"0" * 32)
        with pytest.raises(SourceError, match=r"hcp\.json is not what hcp\.json\.md5 says"):
            list(source.announced(FIRST))

    def test_a_report_that_is_young_may_be_written_still(self, drop: Drop) -> None:
        source = drop.source(settings(totals={"report": "{stem}.json", "counts": "n"}), models(hcp=None))
        drop.put(f"{FIRST}/hcp.csv")
        for at, kind in ((datetime.now(UTC), NotArrived), (NOON, SourceError)):
            drop.put(f"{FIRST}/hcp.json", b'{"n": {"h', at)
            with pytest.raises(SourceError, match=r"hcp\.json is no report of counts") as refused:
                list(source.announced(FIRST))
            assert type(refused.value) is kind

    def test_nobody_asks_for_reports_where_none_are_to_come(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        drop.put(f"{FIRST}/hcp.json", b"{}")
        assert [item.models for item in source.items(FIRST)] == [("hcp",), ()]
        assert list(source.announced(FIRST)) == []

    def test_checksums_that_are_not_looked_at_are_files_like_any_other(self, drop: Drop) -> None:
        source = drop.source(settings(settle={"checksum": "ignore"}), models(hcp=None))
        drop.put(f"{FIRST}/hcp.csv")
        drop.put(f"{FIRST}/hcp.csv.md5", b"0" * 32)
        assert [item.models for item in source.items(FIRST)] == [("hcp",), ()]

    def test_members_of_an_archive_are_items_and_the_archive_is_none(self, drop: Drop, source: Source) -> None:
        members = {"hcp.csv": b"12345", "sub/": b"", "sub/hco.csv": b"123", "readme.md": b"", "__MACOSX/._a": b"x"}
        drop.put(f"{FIRST}/drop.ZIP", zipped(members))
        drop.put(f"{FIRST}/hcp.csv")
        archive = f"{FIRST}/drop.ZIP"
        assert list(source.items(FIRST)) == [
            Item(FIRST, f"{archive}!hcp.csv", 5, self.noon, ("hcp",), archive=archive),
            Item(FIRST, f"{archive}!readme.md", 0, self.noon, (), archive=archive),
            Item(FIRST, f"{archive}!sub/hco.csv", 3, self.noon, ("hco",), archive=archive),
            Item(FIRST, f"{FIRST}/hcp.csv", 1, self.noon, ("hcp",)),
        ]

    def test_an_empty_archive_holds_nothing(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/drop.zip", zipped({"sub/": b"", ".hidden/hcp.csv": b"x"}))
        drop.put(f"{FIRST}/none.zip", zipped({}))
        assert list(source.items(FIRST)) == []

    def test_an_only_member_belongs_to_the_model_that_claims_its_archive(self, drop: Drop) -> None:
        source = drop.source(settings(), models(hcp=r"hcp.*\.zip", hco=None))
        drop.put(f"{FIRST}/hcp_1.zip", zipped({"export": b"x", "sub/": b""}))
        drop.put(f"{FIRST}/hcp_2.zip", zipped({"export": b"x", "more": b"x"}))
        drop.put(f"{FIRST}/hcp_3.zip", zipped({"hco.csv": b"x"}))
        assert [(item.path.rsplit("/")[-1], item.models) for item in source.items(FIRST)] == [
            ("hcp_1.zip!export", ("hcp",)),
            ("hcp_2.zip!export", ()),
            ("hcp_2.zip!more", ()),
            ("hcp_3.zip!hco.csv", ("hco",)),
        ]

    def test_an_archive_can_be_told_to_be_a_batch_by_its_name(self, drop: Drop) -> None:
        drop.put("in/export_20260101.zip", zipped({"hcp.csv": b"x", "hco.csv": b"x"}))
        drop.put("in/export_20260108.zip", zipped({"hcp.csv": b"x"}))
        batches = Batches.model_validate({"files": r"in/export_(?P<batch>\d{8})\.zip", "kind": "date"})
        source = drop.source(settings(batches), models(hcp=None, hco=None))
        assert list(source.batches(None)) == ["2026-01-01", "2026-01-08"]
        assert [item.models for item in source.items("2026-01-01")] == [("hco",), ("hcp",)]

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_member_is_read_as_it_is(self, drop: Drop, source: Source, method: int) -> None:
        content = random.Random(5).randbytes(1 << 20) * 3
        packed = zipped({"notes.txt": b"x" * 99, "hcp.csv": content, "médecin!.csv": b"odd"}, method)
        drop.put(f"{FIRST}/drop.zip", b"#!/bin/sh\n" + packed)
        items = {item.path.split("!", 1)[1]: item for item in source.items(FIRST)}
        with source.open(items["hcp.csv"]) as stream:
            assert stream.read(4) == content[:4]
            stream.seek(0)
            assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == content
            stream.seek(0)
            assert stream.read() == content
        with source.open(items["médecin!.csv"]) as stream:
            assert stream.read() == b"odd"

    def test_a_member_whose_archive_changed_while_it_was_read_is_not_taken(self, drop: Drop, source: Source) -> None:
        for archive, at in (
            (zipped({"hcp.csv": b"12345", "more": b"x"}), NOON),
            (zipped({"hcp.csv": b"54321"}), NOON + timedelta(seconds=2)),
        ):
            drop.put(f"{FIRST}/drop.zip", zipped({"hcp.csv": b"12345"}))
            with pytest.raises(SourceError, match="changed while it was read") as caught:
                self.read(source, partial(drop.put, f"{FIRST}/drop.zip", archive, at))
            assert caught.value.transient

    def test_a_member_that_changed_before_it_was_opened_is_not_read_at_all(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/drop.zip", zipped({"hcp.csv": b"12345"}))
        item = self.item(source)
        later = NOON + timedelta(seconds=1)
        for members, at in (({"hcp.csv": b"12345"}, later), ({"hcp.csv": b"123456"}, NOON), ({"hco.csv": b"1"}, NOON)):
            drop.put(f"{FIRST}/drop.zip", zipped(members), at)
            with pytest.raises(SourceError, match=r"drop\.zip!hcp\.csv changed") as caught, source.open(item):
                pytest.fail("it was opened")
            assert caught.value.transient

    @pytest.mark.parametrize("at", [14, 40], ids=["checksum", "text"])
    def test_a_member_that_does_not_fit_its_checksum_is_an_error_that_names_it(
        self, drop: Drop, source: Source, at: int
    ) -> None:
        whole = zipped({"hcp.csv": bytes(range(256)) * 9000}, zipfile.ZIP_STORED)
        at = whole.index(b"PK\x01\x02") + 16 if at == 14 else at
        drop.put(f"{FIRST}/drop.zip", whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        item = self.item(source)
        with (
            pytest.raises(SourceError, match=r"zip!hcp\.csv is damaged: Bad CRC") as caught,
            source.open(item) as stream,
        ):
            stream.read()
        assert caught.value.hint
        assert not caught.value.transient

    def test_a_member_that_is_overwritten_meanwhile_has_changed_and_is_not_damaged(
        self, drop: Drop, source: Source
    ) -> None:
        whole = zipped({"hcp.csv": b"12345" * 999_999}, zipfile.ZIP_STORED)
        drop.put(f"{FIRST}/drop.zip", whole)
        with pytest.raises(SourceError, match="changed while it was read"), source.open(self.item(source)) as stream:
            self.overwrite_and_read(drop, stream, b"x" * len(whole))

    def test_an_archive_that_is_still_written_has_not_arrived(self, drop: Drop) -> None:
        whole = zipped({"hcp.csv": b"12345" * 999})
        source = drop.source(settings(settle={"quiet": "1h"}), models(hcp=None))
        late = drop.source(settings(settle={"quiet": "1m"}), models(hcp=None))
        for content in (b"", whole[:9], whole[:-9], whole[:-30], b"id,n\n1,2\n"):
            drop.put(f"{FIRST}/drop.zip", content, datetime.now(UTC) - timedelta(minutes=9))
            with pytest.raises(NotArrived, match=r"drop\.zip is no whole zip archive"):
                list(source.items(FIRST))
            with pytest.raises(SourceError, match=r"drop\.zip is no whole zip archive") as caught:
                list(late.items(FIRST))
            assert not isinstance(caught.value, NotArrived)
            assert caught.value.hint

    @pytest.mark.parametrize("name", ["/hcp.csv", "C:/p.csv", "../p.csv", "a/../.csv", "a\\hcp.csv", "hcp\0.csv"])
    def test_a_member_whose_name_leads_elsewhere_is_refused(self, drop: Drop, source: Source, name: str) -> None:
        plain = "x" * len(name)
        drop.put(f"{FIRST}/drop.zip", renamed(zipped({plain: b"1"}, zipfile.ZIP_STORED), plain.encode(), name.encode()))
        with pytest.raises(SourceError, match=r"drop\.zip!.*is not taken: its") as caught:
            list(source.items(FIRST))
        assert caught.value.hint

    @pytest.mark.parametrize("second", ["hcp.csv", "./hcp.csv", "hcp.csv/"])
    def test_a_name_that_stands_twice_in_an_archive_is_refused(self, drop: Drop, source: Source, second: str) -> None:
        other = "x" * len(second)
        packed = zipped({"hcp.csv": b"1", other: b""}, zipfile.ZIP_STORED)
        drop.put(f"{FIRST}/drop.zip", renamed(packed, other.encode(), second.encode()))
        with pytest.raises(SourceError, match=r"drop\.zip!.*hcp\.csv/? is not taken: its name stands twice"):
            list(source.items(FIRST))

    @pytest.mark.parametrize(
        ("offset", "value", "said"),
        [
            (8, b"\x01\x00", "it is encrypted"),
            (10, b"\x0c\x00", "packed by method 12"),
            (38, b"\x00\x00\xff\xa1", "it is a link"),
            (20, b"\xff\xff\xff\x00", "is no whole zip archive"),
            (42, b"\xff\xff\x00\x00", "is no whole zip archive"),
            (6, b"\xff\x00", "is no whole zip archive"),
        ],
        ids=["encrypted", "lzma", "link", "too long", "outside", "version"],
    )
    def test_a_member_that_cannot_be_read_is_refused_when_it_is_listed(
        self, drop: Drop, source: Source, offset: int, value: bytes, said: str
    ) -> None:
        drop.put(f"{FIRST}/drop.zip", relisted(zipped({"hcp.csv": b"12345"}), offset, value))
        with pytest.raises(SourceError, match=said) as caught:
            list(source.items(FIRST))
        assert caught.value.hint

    def test_a_name_that_is_not_utf8_though_it_says_so_is_refused(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/drop.zip", renamed(zipped({"mé.csv": b"1"}), "é".encode(), b"\xff\xfe"))
        with pytest.raises(SourceError, match="is no whole zip archive"):
            list(source.items(FIRST))

    @pytest.mark.parametrize("written", ["é".encode(), b"\x82"], ids=["UTF-8", "DOS"])
    def test_names_that_do_not_say_how_they_are_written_are_read(
        self, drop: Drop, source: Source, written: bytes
    ) -> None:
        drop.put(
            f"{FIRST}/drop.zip", renamed(zipped({f"m{'x' * len(written)}.csv": b"1"}), b"x" * len(written), written)
        )
        assert self.item(source).path == f"{FIRST}/drop.zip!mé.csv"
        with source.open(self.item(source)) as stream:
            assert stream.read() == b"1"

    def test_members_that_share_bytes_are_refused(self, drop: Drop, source: Source) -> None:
        whole = zipped({"hcp.csv": b"1" * 50, "hco.csv": b"2" * 50}, zipfile.ZIP_STORED)
        at = whole.rindex(b"PK\x01\x02") + 42
        drop.put(f"{FIRST}/drop.zip", whole[:at] + bytes(4) + whole[at + 4 :])
        with pytest.raises(SourceError, match="is not taken: it shares bytes with"):
            list(source.items(FIRST))

    def test_a_member_that_is_not_where_the_list_says_is_damaged(self, drop: Drop, source: Source) -> None:
        packed = zipped({"hcp.csv": b"12345", "more.csv": b"1"}, zipfile.ZIP_STORED)
        for content in (b"xx" + packed[2:], packed.replace(b"hcp.csv", b"hco.csv", 1)):
            drop.put(f"{FIRST}/drop.zip", content)
            [item, _] = source.items(FIRST)
            with pytest.raises(SourceError, match=r"hcp\.csv is damaged: .* where the archive's"), source.open(item):
                pytest.fail("it was opened")

    @pytest.mark.parametrize("announced", [b"\x04\x00\x00\x00", b"\xff\x00\x00\x00"], ids=["less", "more"])
    def test_a_member_that_is_not_as_long_as_announced_is_damaged(
        self, drop: Drop, source: Source, announced: bytes
    ) -> None:
        drop.put(f"{FIRST}/drop.zip", relisted(zipped({"hcp.csv": b"12345"}), 24, announced))
        with pytest.raises(SourceError, match=r"hcp\.csv is damaged"), source.open(self.item(source)) as stream:
            stream.read()

    @pytest.mark.parametrize(
        ("limit", "said"),
        [
            ({"max_members": 2}, r"drop\.zip has 3 members; source.archives.max_members is 2"),
            ({"max_bytes": 4_000_000}, r"drop\.zip has more than 4000000 bytes .* of which hcp\.csv has 5000000"),
            ({"max_ratio": 900}, r"drop\.zip!hcp\.csv grows 1,\d\d\d times .* source.archives.max_ratio is 900"),
        ],
    )
    def test_an_archive_that_holds_too_much_is_refused(self, drop: Drop, limit: dict[str, object], said: str) -> None:
        drop.put(f"{FIRST}/drop.zip", zipped({"a": b"1" * 99, "hcp.csv": b"1" * 5_000_000, "b/": b""}))
        wide = {"max_members": 3, "max_bytes": 6_000_000, "max_ratio": 2000}
        assert len(list(drop.source(settings(archives=wide), models(hcp=None)).items(FIRST))) == 2
        with pytest.raises(SourceError, match=said) as caught:
            list(drop.source(settings(archives=wide | limit), models(hcp=None)).items(FIRST))
        assert caught.value.hint

    def test_a_list_that_is_too_long_is_not_even_read(self, drop: Drop) -> None:
        entry = zipped({"x" * 1000: b""})
        listed = entry[entry.index(b"PK\x01\x02") : entry.index(b"PK\x05\x06")] * 1200
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1200, 1200, len(listed), 0, 0)
        drop.put(f"{FIRST}/drop.zip", listed + end)
        source = drop.source(settings(archives={"max_members": 100}), models(hcp=None))
        with pytest.raises(SourceError, match=r"list of members of .*drop\.zip has 1,\d\d\d,\d\d\d bytes"):
            list(source.items(FIRST))

    def test_a_drop_that_is_there_passes_its_check(self, drop: Drop, source: Source) -> None:
        drop.put(f"{FIRST}/hcp.csv")
        source.check()

    def test_a_missing_drop_is_an_error_with_its_cure(self, drop: Drop) -> None:
        source = drop.missing(settings(), models(hcp=None))
        with pytest.raises(SourceError) as caught:
            source.check()
        assert caught.value.hint
        with pytest.raises(SourceError):
            list(source.batches(None))

    def overwrite_and_read(self, drop: Drop, stream: BinaryIO, content: bytes) -> None:
        stream.read(4)
        drop.put(f"{FIRST}/drop.zip", content, NOON + timedelta(seconds=1))
        stream.read()

    def item(self, source: Source) -> Item:
        (item,) = source.items(FIRST)
        return item

    def read(self, source: Source, meanwhile: Callable[[], None]) -> None:
        with source.open(self.item(source)) as stream:
            stream.read()
            meanwhile()
