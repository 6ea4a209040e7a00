"""Reports of export jobs: their numbers are compared with what was read, before anything is published."""

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingestkit import runner, steps
from ingestkit.errors import SourceError
from ingestkit.working import RunOptions
from tests.contracts.zipped import zipped
from tests.integration.test_retries import Quiet, flaky, session_of
from tests.integration.world import World, batches_of

PACKAGES: dict[str, Any] = {
    "source.batches": {"files": r"exp_(?P<batch>[0-9A-F]{8})\.zip", "kind": "hex"},
    "source.totals": {"report": "{stem}.json", "counts": "jobExportCount"},
    "models": {
        "hcp": {
            "key": ["vid__v"],
            "load": "merge",
            "columns": {"vid__v": {"required": True}, "n": {"type": "integer"}},
        },
        "parenthco": {"names": ["relation"], "load": "merge", "key": ["vid__v"], "columns": {"vid__v": {}}},
    },
}
FOLDERS = {"source.batches": {"folders": r"(?P<batch>\d{8})"}}
HCP = "vid__v,n\n1,10\n2,20\n3,x\n"
RELATION = "vid__v\n7\n8\n"
EXPORT = {"HCP.csv": HCP, "RELATION.csv": RELATION}
EQUAL = {"HCP": 3, "RELATION": 2}
MINE = ("--reason", "seen", "--by", "me")


class KilledError(BaseException):
    """The process is gone."""


def package(number: int, members: Mapping[str, str | bytes] = EXPORT) -> dict[str, bytes]:
    return {f"exp_{number:08X}.zip": zipped(members)}


def report(number: int, counts: Mapping[str, Any], **more: Any) -> dict[str, bytes]:
    return {f"exp_{number:08X}.json": report_of(counts, **more)}


def report_of(counts: Mapping[str, Any], **more: Any) -> bytes:
    """As the interface tells of a job; what it says of all records counts main objects only."""
    said = {"responseStatus": "SUCCESS", "exportFull": False, "total_records_exported": "1", "jobExportCount": counts}
    return json.dumps(said | more).encode()


@pytest.fixture
def exports(world: World) -> World:
    world.set_up(PACKAGES)
    return world


def now() -> str:
    """The present instant, with room on both sides of it."""
    time.sleep(0.01)
    said = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    return said


def totals(world: World, run_id: str) -> dict[str, tuple[Any, Any]]:
    rules = world.does("runs", "show", run_id)["rules"]
    return {one["model"]: (one["figure"], one["passed"]) for one in rules if one["name"] == "control_total"}


def test_a_package_that_holds_what_its_report_says_is_done(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL))
    gates = {(one["model"], one["rule"]): (one["limit"], one["last"]) for one in exports.does("plan", "p")["gates"]}
    assert gates["hcp", "control_total"] == (0, None)
    assert batches_of(exports.does("run")) == ["1c5"]
    assert exports.table("hcp", "vid__v") == [("1",), ("2",)]
    assert totals(exports, "p.1c5.1") == {"hcp": (0, True), "parenthco": (0, True)}
    # The report is no file of the ledger, and no stray.
    assert {row["path"] for row in exports.files()} == {f"exp_000001C5.zip!{name}" for name in EXPORT}
    planned = exports.does("plan", "p")
    assert (planned["strays"], planned["unmapped"]) == ([], [])
    gates = {(one["model"], one["rule"]): (one["limit"], one["last"]) for one in planned["gates"]}
    assert gates["hcp", "control_total"] == (0, 0)
    assert exports.does("run")["status"] == "nothing new"


def test_a_package_that_lacks_a_record_is_told_with_both_figures_and_nothing_of_it_is_published(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"HCP": 1060}))
    said = exports.refused(5, "run")
    assert "hcp: exp_000001C5.json says 1,060 records of HCP, and 3 were read: nothing was published" in said
    assert "hint: ingestkit runs show p.1c5.1; to let it pass: ingestkit approve p.1c5.1 --reason '...'" in said
    assert exports.state("SELECT count(*) FROM completion") == [(0,)]
    assert exports.target("SELECT count(*) FROM information_schema.tables WHERE table_name = 'hcp'") == [(0,)]
    assert totals(exports, "p.1c5.1") == {"hcp": (1057, False), "parenthco": (0, True)}
    [gate] = [one for one in exports.does("plan", "p")["gates"] if (one["model"], one["last"]) == ("hcp", 1057)]
    assert (gate["rule"], gate["history"][0]["passed"]) == ("control_total", False)
    [sidecar] = (exports.root / "lake/_runs/p/p.1c5.1").glob("validate.hcp.*")
    [rule] = [one for one in json.loads(sidecar.read_text())["rules"] if one["name"] == "control_total"]
    assert (rule["figure"], rule["limit"], rule["passed"]) == (1057, 0, False)


def test_numbers_may_be_texts_and_things_may_have_their_old_names(exports: World) -> None:
    exports.drop(
        package(0x1C5, {"HCP.csv": HCP, "PARENTHCO.csv": RELATION}), report(0x1C5, {"HCP": "3", "RELATION": "1"})
    )
    said = exports.refused(5, "run")
    assert "parenthco: exp_000001C5.json says 1 records of RELATION, and 2 were read" in said
    assert "hcp" not in said.replace("p.hcp", "")
    exports.drop(report(0x1C5, {"HCP": "3", "RELATION": "1", "PARENTHCO": "1"}))
    exports.does("run")
    assert totals(exports, "p.1c5.2") == {"hcp": (0, True), "parenthco": (0, True)}


@pytest.mark.parametrize(
    ("members", "counts", "told"),
    [
        ({"HCP.csv": HCP}, EQUAL, "parenthco: exp_000001C5.json says 2 records of RELATION, and 0 were read"),
        ({"readme.md": ""}, EQUAL, "parenthco: exp_000001C5.json says 2 records of RELATION, and 0 were read"),
        (EXPORT, EQUAL | {"RELATION": 0}, "parenthco: exp_000001C5.json says 0 records of RELATION, and 2 were read"),
    ],
    ids=["without a file", "without any file", "a file of none"],
)
def test_what_is_counted_and_has_no_file_does_not_pass_nor_what_has_one_and_is_none(
    exports: World, members: Mapping[str, str], counts: Mapping[str, int], told: str
) -> None:
    exports.drop(package(0x1C5, members), report(0x1C5, counts))
    ended = exports.call("run")
    assert ended.code == 5
    shown = exports.does("runs", "show", "p.1c5.1")
    assert told in " ".join([ended.err, *(f"{one['model']}: {one['told']}" for one in shown["rules"])])
    assert exports.state("SELECT count(*) FROM completion") == [(0,)]


def test_what_no_report_speaks_of_is_not_judged_and_what_is_of_no_model_is_told(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, {"HCP": 3, "LICENSE": 3961, "REFERENCE": 0}))
    ended = exports.call("run")
    assert ended.code == 0
    assert "exp_000001C5.json counts records of no model: LICENSE (3,961), REFERENCE (0)" in ended.err
    assert totals(exports, "p.1c5.1") == {"hcp": (0, True), "parenthco": (None, None)}


def test_what_two_models_claim_is_an_error_that_names_both(exports: World) -> None:
    exports.set_up(changed_models({"license": {"files": r"LICENSE\.csv"}, "other": {"files": r"LIC.*\.csv"}}))
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"LICENSE": 1}))
    said = exports.refused(3, "run")
    assert "models license and other both claim exp_000001C5.json!LICENSE" in said


def changed_models(more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    others = {name: {"load": "append", "columns": {"x": {}}} | dict(one) for name, one in more.items()}
    return {**PACKAGES, "models": {**PACKAGES["models"], **others}}


def test_a_package_waits_for_its_report(exports: World) -> None:
    exports.set_up(PACKAGES | {"source.overdue": "1h"})
    exports.drop(package(0x1C5), report(0x1C6, {}))
    answer = exports.does("run")
    assert answer["status"] == "waiting"
    assert "exp_000001C5.zip!HCP.csv cannot be read yet: its report exp_000001C5.json has not come" in answer["message"]
    assert [one["batch"] for one in exports.does("plan", "p")["not_yet"]] == ["1c5"]
    exports.drop(report(0x1C5, EQUAL))
    assert batches_of(exports.does("run")) == ["1c5"]


def test_a_report_that_is_none_is_an_error_that_names_it_behind_what_came_before(exports: World) -> None:
    exports.drop(package(0x1C4), report(0x1C4, EQUAL), package(0x1C5), {"exp_000001C5.json": b'{"jobExportCount": {"H'})
    said = exports.refused(4, "run")
    why = "it is no JSON, or says something twice"
    assert f"error: exp_000001C5.json is no report of counts: {why}\nhint: have it delivered again" in said
    assert exports.completions() == {("1c4", "hcp"): "done", ("1c4", "parenthco"): "done"}
    planned = exports.call("plan", "p", "--output", "json")
    assert (planned.code, planned.answer["failure"]["exit_code"]) == (4, 4)
    exports.drop(report(0x1C5, EQUAL | {"HCP": 3}, more="x" * (1 << 20)))
    assert "it has more than 1,048,576 bytes" in exports.refused(4, "run")
    exports.drop(report(0x1C5, EQUAL))
    assert batches_of(exports.does("run")) == ["1c5"]


def test_a_report_that_may_be_written_still_is_waited_for(exports: World) -> None:
    exports.drop(package(0x1C5), {"exp_000001C5.json": b'{"jobExp'})
    exports.refused(4, "run")
    exports.make_older("file_manifest", "sighted_at", days=1)
    exports.set_up(PACKAGES | {"source.settle": {"quiet": "1h"}})
    answer = exports.does("run")
    assert "batch 1c5 waits: exp_000001C5.json is no report of counts" in answer["message"]


def test_what_a_person_lets_pass_is_published_and_what_is_worse_is_not(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"HCP": 4}))
    exports.refused(5, "run")
    exports.does("approve", "p.1c5.1", *MINE)
    exports.drop(report(0x1C5, EQUAL | {"HCP": 5}))
    assert "says 5 records of HCP" in exports.refused(5, "run")
    exports.drop(report(0x1C5, EQUAL | {"HCP": 4}))
    exports.does("run")
    assert exports.completions() == {("1c5", "hcp"): "done", ("1c5", "parenthco"): "done"}
    rules = {
        one["model"]: one for one in exports.does("runs", "show", "p.1c5.3")["rules"] if one["name"] == "control_total"
    }
    assert (rules["hcp"]["figure"], rules["hcp"]["passed"], rules["hcp"]["approved_by"]) == (1, True, 1)


def test_a_model_without_a_file_that_should_have_one_may_be_let_pass_too(exports: World) -> None:
    exports.drop(package(0x1C5, {"HCP.csv": HCP}), report(0x1C5, EQUAL))
    exports.refused(5, "run")
    exports.does("approve", "p.1c5.1", *MINE)
    exports.does("run")
    assert exports.completions() == {("1c5", "hcp"): "done", ("1c5", "parenthco"): "absent"}


def test_a_report_that_was_put_right_is_taken_up_by_the_next_run(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"HCP": 4}))
    exports.refused(5, "run")
    exports.drop(report(0x1C5, EQUAL))
    exports.does("run")
    assert totals(exports, "p.1c5.2") == {"hcp": (0, True), "parenthco": (0, True)}
    # Of a batch that is done nobody asks it again.
    exports.drop(report(0x1C5, EQUAL | {"HCP": 9}))
    assert exports.does("run")["status"] == "nothing new"


def test_what_is_fetched_anew_is_compared_with_the_report_that_came_with_it(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL))

    def comes_again() -> SourceError:
        exports.drop(package(0x1C5, EXPORT | {"HCP.csv": HCP + "4,40\n"}), report(0x1C5, EQUAL | {"HCP": 4}))
        return SourceError("exp_000001C5.zip!HCP.csv changed while it was read", transient=True)

    with session_of(exports.root, Quiet()) as session:
        shaken, _ = flaky(session, 1, comes_again)
        assert runner.run(shaken, RunOptions()).status == "done"
    assert totals(exports, "p.1c5.1")["hcp"] == (0, True)


def test_stage_commands_take_up_a_report_that_was_put_right(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"HCP": 4}))
    exports.does("extract", "--run-id", "R")
    exports.refused(5, "validate", "--run-id", "R")
    exports.drop(report(0x1C5, EQUAL))
    exports.refused(5, "validate", "--run-id", "R")
    exports.does("extract", "--run-id", "R")
    for stage in ("validate", "load", "gate"):
        exports.does(stage, "--run-id", "R")
    assert exports.completions() == {("1c5", "hcp"): "done", ("1c5", "parenthco"): "done"}


@pytest.mark.parametrize("counts", [EQUAL, EQUAL | {"HCP": 4}], ids=["equal", "one missing"])
def test_what_was_killed_behind_extract_still_compares(
    exports: World, monkeypatch: pytest.MonkeyPatch, counts: Mapping[str, int]
) -> None:
    exports.drop(package(0x1C5), report(0x1C5, counts))

    def dies(step: str) -> None:
        if step == "validate.begun":
            raise KilledError

    monkeypatch.setattr(steps, "reached", dies)
    with pytest.raises(KilledError):
        exports.call("run")
    monkeypatch.undo()
    for path in ("exp_000001C5.zip", "exp_000001C5.json"):
        # What is compared was kept, wherever the source is by now.
        (exports.root / "drops" / path).rename(exports.root / path)
    exports.call("run", "--if-locked", "fail")
    if counts == EQUAL:
        assert exports.completions() == {("1c5", "hcp"): "done", ("1c5", "parenthco"): "done"}
    assert totals(exports, "p.1c5.1")["hcp"] == ((0, True) if counts == EQUAL else (1, False))
    assert (exports.completions() == {}) is (counts != EQUAL)


def test_what_the_source_has_no_more_is_compared_with_what_was_kept_by_a_state_that_was_lost_too(
    exports: World,
) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL))
    exports.does("run")
    for path in (exports.root / "drops").iterdir():
        path.unlink()
    exports.does("backfill", "--batch", "1c5", "--from-lake")
    assert totals(exports, "p.1c5.2") == {"hcp": (0, True), "parenthco": (0, True)}
    exports.lose_state()
    exports.does("state", "adopt", "p", "--reason", "its disk died", "--yes")
    exports.does("backfill", "--batch", "1c5", "--from-lake")
    assert totals(exports, "p.1c5.3") == {"hcp": (0, True), "parenthco": (0, True)}


def test_files_of_an_earlier_time_are_compared_with_what_was_said_of_them_then(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL))
    exports.does("run")
    then = now()
    exports.drop(package(0x1C5, EXPORT | {"HCP.csv": HCP + "4,40\n"}), report(0x1C5, EQUAL | {"HCP": 4}))
    exports.does("run")
    exports.does("backfill", "--batch", "1c5", "--as-of", then, "--reason", "the newer one was wrong")
    assert exports.run_row("p.1c5.3")["counts"]["records"] == 5
    assert totals(exports, "p.1c5.3") == {"hcp": (0, True), "parenthco": (0, True)}
    exports.does("backfill", "--batch", "1c5", "--from-lake")
    assert exports.run_row("p.1c5.4")["counts"]["records"] == 6
    assert totals(exports, "p.1c5.4") == {"hcp": (0, True), "parenthco": (0, True)}


def test_packages_and_reports_of_one_batch_are_compared_each_with_its_own(exports: World) -> None:
    exports.set_up(PACKAGES | FOLDERS)
    one, other = package(1, {"HCP.csv": HCP}), package(2, {"HCP_2.csv": "vid__v,n\n9,1\n", "RELATION.csv": RELATION})
    # Together they would be as many.
    reports = report(1, {"HCP": 2}), report(2, {"HCP": 2, "RELATION": 2})
    exports.drop(*({f"20260101/{name}": content for name, content in each.items()} for each in (one, other, *reports)))
    said = exports.refused(5, "run")
    assert "hcp: 20260101/exp_00000001.json says 2 records of HCP, and 3 were read; and 1 more of its reports" in said
    assert totals(exports, "p.20260101.1")["hcp"] == (2, False)
    exports.drop({f"20260101/{name}": content for name, content in report(1, {"HCP": 3}).items()})
    assert "20260101/exp_00000002.json says 2 records of HCP, and 1 were read" in exports.refused(5, "run")
    exports.drop({f"20260101/{name}": content for name, content in report(2, {"HCP": 1, "RELATION": 2}).items()})
    exports.does("run")
    assert totals(exports, "p.20260101.3") == {"hcp": (0, True), "parenthco": (0, True)}


def test_one_report_in_a_folder_is_of_all_that_it_holds(exports: World) -> None:
    exports.set_up(PACKAGES | FOLDERS | {"source.totals": {"report": "job.json", "counts": "job.counts"}})
    exports.drop(
        {
            "20260101/HCP_1.csv": HCP,
            "20260101/HCP_2.csv": "vid__v,n\n9,1\n",
            "20260101/more.zip": zipped({"RELATION.csv": RELATION}),
        }
    )
    assert "its report 20260101/job.json has not come" in exports.does("run")["message"]
    exports.drop({"20260101/job.json": json.dumps({"job": {"counts": {"hcp": 4, "relations": 2}}})})
    exports.does("run")
    assert totals(exports, "p.20260101.1") == {"hcp": (0, True), "parenthco": (0, True)}


def test_a_file_kept_out_whole_was_not_read(exports: World) -> None:
    exports.set_up(PACKAGES | {"validation": {"max_file_reject_pct": 50, "on_bad_file": "publish_rest"}})
    exports.drop(package(0x1C5, EXPORT | {"HCP_2.csv": "vid__v,n\n8,x\n9,y\n"}), report(0x1C5, EQUAL | {"HCP": 5}))
    said = exports.refused(5, "run")
    assert "says 5 records of HCP, and 3 were read" in said


def test_a_rehearsal_judges_it_too_but_not_by_some_of_the_records(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"HCP": 4}))
    ended = exports.call("run", "--dry-run=data")
    assert ended.code == 5
    assert "says 4 records of HCP, and 3 were read" in ended.out + ended.err
    ended = exports.call("run", "--dry-run=data", "--rows", "1")
    assert "were read" not in ended.out + ended.err


def test_a_pipeline_that_asks_for_reports_no_more_is_judged_without(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, EQUAL | {"HCP": 4}))
    exports.refused(5, "run")
    exports.set_up(PACKAGES | {"source.totals": None})
    exports.does("run")
    assert totals(exports, "p.1c5.2") == {}


def test_what_was_let_go_of_before_is_compared_with_what_its_report_said(exports: World) -> None:
    exports.set_up(PACKAGES | FOLDERS | {"source.after_success": {"move": "done"}})
    exports.drop({f"20260101/{name}": content for name, content in (package(1) | report(1, EQUAL)).items()})
    exports.does("run")
    moved = {str(path.relative_to(exports.root / "drops")) for path in Path(exports.root / "drops").rglob("*.*")}
    assert moved == {"done/20260101/exp_00000001.zip", "done/20260101/exp_00000001.json"}
    more = package(2, {"HCP_2.csv": "vid__v,n\n9,1\n"}) | report(2, {"HCP": 1})
    exports.drop({f"20260101/{name}": content for name, content in more.items()})
    exports.does("run")
    assert exports.table("hcp", "vid__v") == [("1",), ("2",), ("9",)]
    assert totals(exports, "p.20260101.2")["hcp"] == (0, True)
    sidecar = json.loads((exports.root / "state/runs/p/p.20260101.2/extract.hcp.json").read_text())
    assert [one["report"][-13:] for one in sidecar["details"]["announced"]] == ["00000002.json", "00000001.json"]


def test_trailers_and_checksums_of_members_and_of_packages_are_control_totals_too(exports: World) -> None:
    exports.set_up(
        PACKAGES | {"models": {"hcp": {**PACKAGES["models"]["hcp"], "csv": {"trailer": "END (?P<count>\\d+)"}}}}
    )
    sums = [hashlib.sha256(one.encode()).hexdigest() for one in (HCP + "END 3\n", HCP + "END 4\n")]
    whole = zipped({"HCP.csv": HCP + "END 3\n", "HCP.csv.sha256": sums[0]})
    exports.drop({"exp_00000001.zip": zipped({"HCP.csv": HCP + "END 4\n"})}, report(1, {"HCP": 3}))
    assert "exp_00000001.zip!HCP.csv" in (said := exports.refused(5, "run"))
    assert "4" in said
    exports.drop({"exp_00000001.zip": zipped({"HCP.csv": HCP + "END 3\n", "HCP.csv.sha256": sums[1]})})
    assert "exp_00000001.zip!HCP.csv is not what exp_00000001.zip!HCP.csv.sha256 says" in exports.refused(4, "run")
    exports.drop({"exp_00000001.zip": whole, "exp_00000001.zip.sha256": sums[0]})
    assert "exp_00000001.zip is not what exp_00000001.zip.sha256 says" in exports.refused(4, "run")
    exports.drop({"exp_00000001.zip.sha256": hashlib.sha256(whole).hexdigest()})
    exports.does("run")
    assert exports.statuses() == {"exp_00000001.zip!HCP.csv": "loaded"}


@pytest.mark.parametrize(
    ("totals", "why"),
    [
        ({"report": "{stem}.csv", "counts": "n"}, "should match pattern"),
        ({"report": "in/{stem}.json", "counts": "n"}, "should match pattern"),
        (
            {"report": "{batch}.json", "counts": "n"},
            "a report is a JSON file's name, such as {stem}.json or export.json",
        ),
        ({"report": "~{stem}.json", "counts": "n"}, "totals.report names files that ignore leaves out"),
        ({"report": "{stem}.json"}, "totals.counts"),
    ],
    ids=["csv", "folder", "batch", "ignored", "no place"],
)
def test_settings_by_which_no_report_could_come_are_refused(
    exports: World, totals: Mapping[str, str], why: str
) -> None:
    exports.set_up(PACKAGES | {"source.totals": totals})
    assert why in exports.refused(3, "run")


def test_a_file_taken_in_by_a_person_is_what_the_report_had_counted(exports: World) -> None:
    exports.drop(package(0x1C5, {"doctors.csv": HCP, "RELATION.csv": RELATION}), report(0x1C5, EQUAL))
    assert "says 3 records of HCP, and 0 were read" in exports.refused(5, "run")
    exports.does("approve", "p.1c5.1", *MINE)
    exports.does("run")
    exports.does("quarantine", "replay", "p", "--batch", "1c5", "--as", "hcp", *MINE)
    assert exports.table("hcp", "vid__v") == [("1",), ("2",)]
    assert totals(exports, "p.1c5.3") == {"hcp": (0, True)}


def test_a_file_of_no_model_is_kept_without_a_report_and_taken_in(exports: World) -> None:
    exports.set_up(PACKAGES | FOLDERS)
    exports.drop(
        {"20260101/hcp.csv": HCP, "20260101/hcp.json": report_of({"HCP": 3}), "20260101/doctors.csv": "vid__v,n\n9,9\n"}
    )
    exports.does("run")
    exports.does("quarantine", "replay", "p", "--batch", "20260101", "--as", "hcp", *MINE)
    assert exports.table("hcp", "vid__v") == [("1",), ("2",), ("9",)]


def test_a_report_that_counts_nothing_is_told(exports: World) -> None:
    exports.drop(package(0x1C5), report(0x1C5, {}))
    told = exports.call("run")
    assert told.code == 0
    assert "exp_000001C5.json counts nothing: exp_000001C5.zip is compared with nothing" in told.err


def test_a_snapshot_that_is_passed_over_is_not_compared(exports: World) -> None:
    replaced = {name: one | {"load": "replace"} for name, one in PACKAGES["models"].items()}
    exports.set_up(PACKAGES | {"models": replaced, "catch_up": "newest"})
    exports.drop(package(1, {"HCP.csv": HCP}), report(1, {"HCP": 9, "RELATION": 9}), package(2), report(2, EQUAL))
    assert batches_of(exports.does("run")) == ["1", "2"]
    assert totals(exports, "p.1.1") == {}
    assert totals(exports, "p.2.1") == {"hcp": (0, True), "parenthco": (0, True)}
