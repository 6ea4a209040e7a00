"""What a source of files keeps when it lets go of files; an adapter inherits the class and gives it a drop to fill."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ingestkit import steps
from ingestkit.errors import SourceError
from ingestkit.model import FileStatus, FileVersion
from ingestkit.ports import Source
from ingestkit.settings import Batches
from tests.contracts.source import FIRST, FOLDERS, NOON, SECOND, Drop, models, settings
from tests.contracts.zipped import zipped

LATER = NOON + timedelta(hours=1)
CSV = f"{FIRST}/hcp.csv"
After: TypeAlias = Mapping[str, object]
MOVE: After = {"move": "done"}
RENAME: After = {"rename": ".loaded"}
DELETE: After = {"delete": True}
ACTIONS = pytest.mark.parametrize("after", [MOVE, RENAME, DELETE], ids=["move", "rename", "delete"])
TOLD = {"move": f"moved to done/{CSV}", "rename": f"renamed to {CSV}.loaded", "delete": "deleted"}


class KilledError(BaseException):
    pass


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps at which a round ends as if its process were killed."""
    at: list[str] = []

    def reached(step: str) -> None:
        if step in at:
            raise KilledError(step)

    monkeypatch.setattr(steps, "reached", reached)
    return at


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def version(source: Source, path: str, number: int = 1) -> FileVersion:
    """The ledger's row of a file that was loaded as it is now."""
    item = next(one for one in source.items(FIRST) if one.path == path)
    return FileVersion(
        pipeline="p",
        path=path,
        version=number,
        id=f"{number:016x}",
        batch=FIRST,
        model="hcp",
        status=FileStatus.LOADED,
        size=item.size,
        mtime=item.mtime,
        sighted_at=NOON,
    )


def released(source: Source, *done: FileVersion, others: Sequence[str] = ()) -> dict[str, str]:
    return {file.path: told for file, told in source.release(done, others)}


class ReleaseContract:
    @pytest.fixture
    def drop(self) -> Drop:
        raise NotImplementedError

    def source(self, drop: Drop, after: After, batches: Batches = FOLDERS, **more: Any) -> Source:
        return drop.source(settings(batches, after_success=after, **more), models(hcp=None))

    @ACTIONS
    def test_a_file_is_let_go_of_and_in_no_batch_any_more(self, drop: Drop, after: After) -> None:
        drop.put(CSV, b"one")
        drop.put(f"{FIRST}/hcp_2.csv", b"two")
        source = self.source(drop, after)
        assert released(source, version(source, CSV)) == {CSV: TOLD[next(iter(after))]}
        left = {"move": f"done/{CSV}", "rename": f"{CSV}.loaded"}.get(next(iter(after)))
        assert tree(drop.root) == {f"{FIRST}/hcp_2.csv": b"two"} | ({left: b"one"} if left else {})
        for one in (source, self.source(drop, after)):
            assert [item.path for item in one.items(FIRST)] == [f"{FIRST}/hcp_2.csv"]
            assert (list(one.batches(None)), list(one.strays())) == ([FIRST], [])

    @ACTIONS
    @pytest.mark.parametrize("step", ["release.aside", "release.ended"])
    def test_killed_anywhere_the_next_round_ends_it(
        self, drop: Drop, killed: list[str], after: After, step: str
    ) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, after)
        mine = version(source, CSV)
        killed.append(step)
        with pytest.raises(KilledError):
            released(source, mine)
        killed.clear()
        again = self.source(drop, after)
        assert list(again.items(FIRST)) == []
        told = TOLD[next(iter(after))]
        # What was deleted leaves nothing that tells who did it.
        gone = "not at the source any more"
        assert released(again, mine) == {CSV: gone if (told, step) == ("deleted", "release.ended") else told}
        assert sorted(tree(drop.root).values()) == ([] if told == "deleted" else [b"one"])

    @ACTIONS
    def test_another_version_stays(self, drop: Drop, after: After) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, after)
        mine = version(source, CSV)
        for content, at in ((b"other", NOON), (b"two", LATER)):
            drop.put(CSV, content, at)
            assert released(source, mine) == {}
            assert tree(drop.root) == {CSV: content}

    @ACTIONS
    def test_a_version_that_slipped_in_at_the_last_moment_is_put_back(
        self, drop: Drop, monkeypatch: pytest.MonkeyPatch, after: After
    ) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, after)
        mine = version(source, CSV)
        aside = f"{FIRST}/.ingestkit-{mine.id}"
        # As if the sender had written between the last look and the taking.
        monkeypatch.setattr(steps, "reached", lambda step: drop.put(aside, b"newer") if step == "release.aside" else 0)
        assert released(source, mine) == {}
        assert tree(drop.root) == {CSV: b"newer"}

    @ACTIONS
    def test_killed_with_a_newer_version_aside_the_next_round_puts_it_back(
        self, drop: Drop, killed: list[str], after: After
    ) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, after)
        mine = version(source, CSV)
        killed.append("release.aside")
        with pytest.raises(KilledError):
            released(source, mine)
        drop.put(f"{FIRST}/.ingestkit-{mine.id}", b"newer")
        assert released(self.source(drop, after), mine) == {}
        assert tree(drop.root) == {CSV: b"newer"}

    @ACTIONS
    def test_a_newer_one_that_came_after_a_kill_stays(self, drop: Drop, killed: list[str], after: After) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, after)
        mine = version(source, CSV)
        killed.append("release.aside")
        with pytest.raises(KilledError):
            released(source, mine)
        killed.clear()
        drop.put(CSV, b"newer", LATER)
        assert released(self.source(drop, after), mine) == {CSV: TOLD[next(iter(after))]}
        assert tree(drop.root)[CSV] == b"newer"

    @pytest.mark.parametrize("after", [MOVE, RENAME], ids=["move", "rename"])
    def test_what_was_let_go_of_before_is_not_overwritten(self, drop: Drop, after: After) -> None:
        source = self.source(drop, after)
        for number, content in enumerate((b"one", b"other"), 1):
            drop.put(CSV, content)
            told = released(source, version(source, CSV, number))
        assert told[CSV].endswith(f"hcp.csv.{2:016x}" + (".loaded" if after == RENAME else ""))
        assert sorted(tree(drop.root).values()) == [b"one", b"other"]

    @ACTIONS
    def test_its_marker_checksum_and_report_go_with_it(self, drop: Drop, after: After) -> None:
        drop.put(CSV, b"one")
        beside = [f"{CSV}.done", f"{CSV}.md5", f"{CSV}.json"]
        for path in (*beside, f"{FIRST}/hcp_2.csv.done", f"{FIRST}/hcp_2.csv"):
            drop.put(path, b"x")
        totals = {"report": "{name}.json", "counts": "n"}
        source = self.source(drop, after, settle={"marker": "{name}.done"}, totals=totals)
        released(source, version(source, CSV))
        here = {path for path in tree(drop.root) if not path.startswith("done/") and not path.endswith(".loaded")}
        assert here == {f"{FIRST}/hcp_2.csv", f"{FIRST}/hcp_2.csv.done"}
        assert len(tree(drop.root)) == (2 if after == DELETE else 6)

    @ACTIONS
    def test_a_marker_that_comes_with_a_newer_version_stays_with_it(
        self, drop: Drop, monkeypatch: pytest.MonkeyPatch, after: After
    ) -> None:
        drop.put(CSV, b"one")
        drop.put(f"{CSV}.done", b"old")
        source = self.source(drop, after, settle={"marker": "{name}.done"})
        mine = version(source, CSV)

        def arrives(step: str) -> None:
            if step == "release.aside":
                drop.put(CSV, b"newer", LATER)
                drop.put(f"{CSV}.done", b"new")

        monkeypatch.setattr(steps, "reached", arrives)
        assert released(source, mine) == {CSV: TOLD[next(iter(after))]}
        assert (tree(drop.root)[CSV], tree(drop.root)[f"{CSV}.done"]) == (b"newer", b"new")

    @ACTIONS
    def test_a_marker_is_given_back_with_a_file_that_is_another(
        self, drop: Drop, monkeypatch: pytest.MonkeyPatch, after: After
    ) -> None:
        drop.put(CSV, b"one")
        drop.put(f"{CSV}.done", b"new")
        source = self.source(drop, after, settle={"marker": "{name}.done"})
        mine = version(source, CSV)
        aside = f"{FIRST}/.ingestkit-{mine.id}"
        monkeypatch.setattr(steps, "reached", lambda step: drop.put(aside, b"newer") if step == "release.aside" else 0)
        assert released(source, mine) == {}
        assert tree(drop.root) == {CSV: b"newer", f"{CSV}.done": b"new"}

    @ACTIONS
    def test_a_newer_file_beside_one_that_lies_aside_is_looked_at_before_it_goes(
        self, drop: Drop, monkeypatch: pytest.MonkeyPatch, after: After
    ) -> None:
        other = f"{FIRST}/hcp-0.csv"
        for path in (CSV, other):
            drop.put(path, b"one")
        source = self.source(drop, after)
        both = [version(source, other, 2), version(source, CSV)]
        (drop.root / CSV).with_name(f".ingestkit-{both[1].id}").hardlink_to(drop.root / CSV)

        def arrives(step: str) -> None:
            # Behind the listing, and before its turn.
            if step == "release.aside":
                (drop.root / CSV).unlink()
                drop.put(CSV, b"newer", LATER)

        monkeypatch.setattr(steps, "reached", arrives)
        released(source, *both)
        assert tree(drop.root)[CSV] == b"newer"

    @ACTIONS
    def test_an_archive_goes_when_all_its_members_may(self, drop: Drop, after: After) -> None:
        drop.put(f"{FIRST}/all.zip", zipped({"hcp.csv": b"one", "hcp_2.csv": b"two"}))
        source = self.source(drop, after)
        both = [version(source, f"{FIRST}/all.zip!{name}") for name in ("hcp.csv", "hcp_2.csv")]
        assert released(source, both[0], others=[both[1].path]) == {}
        assert list(tree(drop.root)) == [f"{FIRST}/all.zip"]
        assert len(set(released(source, *both).values())) == 1
        assert list(source.items(FIRST)) == []

    def test_what_is_gone_is_told_as_gone(self, drop: Drop) -> None:
        drop.put(CSV)
        source = self.source(drop, DELETE)
        mine = version(source, CSV)
        drop.remove(CSV)
        assert released(source, mine) == {CSV: "not at the source any more"}

    def test_a_link_is_left(self, drop: Drop) -> None:
        drop.put("kept.csv", b"one")
        drop.folder(FIRST)
        (drop.root / CSV).symlink_to("../kept.csv")
        source = self.source(drop, DELETE)
        assert released(source, version(source, CSV)) == {CSV: "left, since it is a link"}
        assert (drop.root / CSV).is_symlink()

    def test_files_may_be_moved_out_of_the_drop(self, drop: Drop, tmp_path: Path) -> None:
        drop.put(CSV, b"one")
        source = self.source(drop, {"move": str(tmp_path / "archive/of mine")})
        released(source, version(source, CSV))
        assert (tmp_path / "archive/of mine" / CSV).read_bytes() == b"one"
        assert tree(drop.root) == {}

    def test_a_folder_named_from_the_root_that_lies_in_the_drop_is_known_too(self, drop: Drop) -> None:
        drop.put(CSV, b"one")
        source = self.source(
            drop,
            {"move": str(drop.root / "done")},
            batches=Batches(folders=r"(?:\w+/)?(?P<batch>\d{8}_\d{6})"),
        )
        released(source, version(source, CSV))
        drop.put(f"{FIRST}/hcp_2.csv")
        assert [item.path for item in source.items(FIRST)] == [f"{FIRST}/hcp_2.csv"]

    @pytest.mark.parametrize(
        ("batches", "told"),
        [
            (Batches(folders=r"(?:\w+/)?(?P<batch>\d{8}_\d{6})"), ["archive/notes.txt", "notes.txt"]),
            (Batches(files=r"(?P<batch>\d{8}_\d{6})/\w+\.csv"), ["archive/notes.txt", "notes.txt"]),
            # Where no batch lies deeper nothing deeper is looked at.
            (FOLDERS, ["notes.txt"]),
        ],
        ids=["nested", "files", "folders"],
    )
    def test_beside_what_was_moved_a_file_is_a_stray_and_no_folder_on_the_way_is(
        self, drop: Drop, batches: Batches, told: list[str]
    ) -> None:
        for path in (CSV, "notes.txt", "archive/notes.txt", f"{SECOND}/hcp.csv"):
            drop.put(path)
        source = self.source(drop, {"move": "archive/done"}, batches)
        before = list(source.strays())
        released(source, version(source, CSV))
        again = self.source(drop, {"move": "archive/done"}, batches)
        assert (before, list(again.strays())) == (told, told)

    def test_of_what_cannot_be_moved_one_failure_speaks_for_all(self, drop: Drop) -> None:
        drop.put("done", b"a file where the folder should be")
        for number in range(5):
            drop.put(f"{FIRST}/hcp_{number}.csv")
        source = self.source(drop, MOVE)
        mine = [version(source, item.path) for item in source.items(FIRST)]
        with pytest.raises(SourceError, match=r"hcp_0\.csv cannot be moved"):
            released(source, *mine)
        assert len(tree(drop.root)) == 6
