"""Exports of which a report says whether they are full: full ones replace, and what has changed is merged."""

from collections.abc import Mapping
from typing import Any

import pytest

from ingestkit import steps
from tests.integration.test_totals import MINE, PACKAGES, KilledError, package, report, report_of
from tests.integration.world import World

HCP: Mapping[str, Any] = {
    "key": ["vid__v"],
    "delta_by_report": True,
    "columns": {"vid__v": {"required": True}, "n": {"type": "integer"}},
}
REPORTS = {"report": "{stem}.json", "counts": "jobExportCount", "full": "exportFull"}
BY_REPORT: dict[str, Any] = {
    "source.batches": PACKAGES["source.batches"],
    "source.totals": REPORTS,
    "gate": {"row_delta_pct": "never"},
    "models": {"hcp": HCP},
}


def export(
    number: int, rows: Mapping[int, int], *, full: bool, says: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """A package of the table hcp, with the report on it."""
    lines = "".join(f"{key},{value}\n" for key, value in rows.items())
    counts = {"HCP": len(rows)} if says is None else says
    return package(number, {"HCP.csv": f"vid__v,n\n{lines}"}) | report(number, counts, exportFull=full)


def table(world: World) -> dict[str, int]:
    return dict(world.table("hcp", "vid__v", "n"))


def modes(world: World) -> dict[str, str]:
    return dict(world.target("SELECT batch, mode FROM ingestkit_receipt WHERE model = 'hcp'"))


@pytest.fixture
def exports(world: World) -> World:
    world.set_up(BY_REPORT)
    return world


def test_what_a_report_calls_full_replaces_and_what_it_does_not_is_merged(exports: World) -> None:
    exports.drop(export(1, {1: 10, 2: 20}, full=True), export(2, {2: 21, 3: 30}, full=False))
    exports.does("run")
    assert table(exports) == {"1": 10, "2": 21, "3": 30}
    exports.drop(export(3, {3: 31, 4: 40}, full=True))
    exports.does("run")
    assert table(exports) == {"3": 31, "4": 40}
    assert modes(exports) == {"1": "replace", "2": "merge", "3": "replace"}
    assert exports.does("run")["status"] == "nothing new"


def test_it_may_say_it_by_text_and_at_a_place_within(exports: World) -> None:
    exports.set_up(BY_REPORT | {"source.totals": REPORTS | {"full": "job.full"}})
    exports.drop(export(1, {1: 10}, full=True), report(1, {"HCP": 1}, job={"full": "TRUE"}))
    exports.drop(export(2, {2: 20}, full=True), report(2, {"HCP": 1}, job={"full": "false"}))
    exports.does("run")
    assert table(exports) == {"1": 10, "2": 20}


@pytest.mark.parametrize("said", [None, 1, "yes", {"of": True}])
def test_a_report_that_does_not_say_it_stops_the_batch(exports: World, said: object) -> None:
    exports.drop(export(1, {1: 10}, full=True), report(1, {"HCP": 1}, exportFull=said))
    refused = exports.refused(4, "run")
    assert "exp_00000001.json is no report of counts: it says neither true nor false at exportFull" in refused
    assert exports.state("SELECT count(*) FROM completion") == [(0,)]


def test_a_package_waits_for_its_report(exports: World) -> None:
    exports.drop(export(1, {1: 10}, full=True))
    exports.does("run")
    exports.drop({name: content for name, content in export(2, {2: 20}, full=False).items() if name.endswith("zip")})
    assert exports.does("run")["status"] == "waiting"
    exports.drop(report(2, {"HCP": 1}, exportFull=False))
    exports.does("run")
    assert table(exports) == {"1": 10, "2": 20}


@pytest.mark.parametrize("right", [True, False])
def test_a_report_that_was_put_right_before_anything_was_published_counts(exports: World, *, right: bool) -> None:
    exports.drop(export(1, {1: 10}, full=True))
    exports.does("run")
    exports.drop(export(2, {2: 20}, full=not right, says={"HCP": 9}))
    assert "says 9 records of HCP" in exports.refused(5, "run")
    exports.drop(report(2, {"HCP": 1}, exportFull=right))
    exports.does("run")
    assert table(exports) == ({"2": 20} if right else {"1": 10, "2": 20})
    assert modes(exports)["2"] == ("replace" if right else "merge")
    # What is published is not loaded otherwise for what its report says later.
    exports.drop(report(2, {"HCP": 1}, exportFull=not right))
    assert exports.does("run")["status"] == "nothing new"


@pytest.mark.parametrize("step", ["extract.recorded", "validate.recorded", "load.committed"])
def test_what_was_killed_is_gone_on_with_as_the_report_said_that_is_gone_since(
    exports: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    exports.drop(export(1, {1: 10}, full=True))
    exports.does("run")
    exports.drop(export(2, {2: 20}, full=False))

    def dies(reached: str) -> None:
        if reached == step:
            raise KilledError

    monkeypatch.setattr(steps, "reached", dies)
    with pytest.raises(KilledError):
        exports.call("run")
    monkeypatch.undo()
    for path in ("exp_00000002.zip", "exp_00000002.json"):
        (exports.root / "drops" / path).rename(exports.root / path)
    exports.does("run")
    assert table(exports) == {"1": 10, "2": 20}
    assert exports.completions()["2", "hcp"] == "done"


def test_a_state_built_again_from_the_lake_knows_it(exports: World) -> None:
    exports.drop(export(1, {1: 10}, full=True), export(2, {2: 20}, full=False))
    exports.does("run")
    before = exports.state("SELECT path, changes FROM file_manifest ORDER BY path")
    assert [bool(changes) for _, changes in before] == [False, True]
    exports.lose_state()
    exports.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert exports.state("SELECT path, changes FROM file_manifest ORDER BY path") == before
    for name in ("exp_00000001.json", "exp_00000002.json"):
        (exports.root / "drops" / name).unlink()
    (exports.root / "warehouse.duckdb").unlink()
    exports.does("backfill", "p", "--from-lake")
    assert table(exports) == {"1": 10, "2": 20}


PLAIN = BY_REPORT | {"source.totals": None, "models": {"hcp": {**HCP, "delta_by_report": False}}}


def test_nobody_guesses_of_files_that_came_before_reports_were_asked(exports: World) -> None:
    exports.set_up(PLAIN)
    exports.drop(export(1, {1: 10}, full=True))
    exports.does("run")
    exports.set_up(BY_REPORT)
    assert exports.does("run")["status"] == "nothing new"
    refused = exports.refused(5, "backfill", "p", "--batch", "1", "--from-lake")
    assert "no report said whether exp_00000001.zip!HCP.csv holds all there is or changes alone" in refused
    assert "hint: ingestkit extract p --batch 1 --force fetches it beside its report" in refused
    exports.does("extract", "p", "--batch", "1", "--force")
    exports.does("run")
    assert (table(exports), modes(exports)) == ({"1": 10}, {"1": "replace"})


def test_what_landed_before_reports_were_asked_is_told_apart_by_those_that_lie_there(exports: World) -> None:
    exports.drop(export(1, {1: 10}, full=True))
    exports.does("run")
    exports.set_up(PLAIN | {"gate": {"row_delta_pct": 1}})
    exports.drop(export(2, {2: 20, 3: 30}, full=False))
    assert "row_delta" in exports.refused(6, "run")
    exports.set_up(BY_REPORT)
    exports.does("run")
    assert table(exports) == {"1": 10, "2": 20, "3": 30}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"source.totals": {"report": "{stem}.json", "counts": "n"}}, "needs source.totals.full"),
        ({"models": {"hcp": {**HCP, "load": "merge"}}}, "delta_by_report is of load: replace"),
        ({"models": {"hcp": {**HCP, "key": []}}}, "delta_by_report needs a key"),
        ({"models": {"hcp": {**HCP, "delta": "_delta"}}}, "delta or delta_by_report"),
    ],
    ids=["no place", "merge", "no key", "both"],
)
def test_settings_that_contradict_it_are_refused(exports: World, changed: Mapping[str, Any], why: str) -> None:
    exports.set_up(BY_REPORT | dict(changed))
    assert why in exports.refused(3, "run")


def test_a_file_of_no_model_is_taken_in_as_its_report_said(exports: World) -> None:
    exports.drop(export(1, {1: 10}, full=True))
    exports.drop(package(2, {"doctors.csv": "vid__v,n\n2,20\n"}), report(2, {}, exportFull=False))
    exports.does("run")
    exports.does("quarantine", "replay", "p", "--batch", "2", "--as", "hcp", *MINE)
    assert table(exports) == {"1": 10, "2": 20}


def test_reports_that_contradict_each_other_are_an_error_that_names_the_file(exports: World) -> None:
    within: Mapping[str, str | bytes] = {
        "HCP.csv": "vid__v,n\n1,10\n",
        "exp_00000001.json": report_of({"HCP": 1}, exportFull=False),
    }
    exports.drop(package(1, within), report(1, {"HCP": 1}, exportFull=True))
    refused = exports.refused(4, "run")
    assert "reports contradict each other over exp_00000001.zip!HCP.csv" in refused
