"""Validate over a local lake: artifacts, figures, quarantine, reuse and rules."""

import gzip
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from ingestkit import csvfile, steps
from ingestkit.errors import Interrupted, TargetError
from ingestkit.lake import Lake
from ingestkit.model import Artifact, ArtifactKind, FileStatus, FileVersion, Work
from ingestkit.pipeline import Pipeline, RunContext, Stop, SystemClock
from ingestkit.ports import Source, Warehouse
from ingestkit.settings import PipelineSettings
from ingestkit.stages.validate import validate
from ingestkit.stores.local import LocalStore

COLUMNS: dict[str, dict[str, Any]] = {
    "vid__v": {"type": "string", "pattern": r"\d{18}"},
    "name": {"type": "string", "max_length": 20},
    "born": {"type": "integer", "min": 1900},
    "modified": {"type": "timestamp"},
}
HEADER = "vid__v,name,born,modified"


@dataclass(frozen=True, slots=True)
class Silent:
    def began(self, stage: str, model: str, total: int | None) -> None: ...
    def moved(self, stage: str, model: str, by: int) -> None: ...
    def ended(self, stage: str, model: str, status: str) -> None: ...
    def said(self, message: str, **facts: Any) -> None: ...
    def warned(self, message: str, **facts: Any) -> None: ...


def context(folder: Path, *, run_id: str = "p.b.1", token: int = 1, facts: Any = None, **settings: Any) -> RunContext:
    model = {"key": ["vid__v"], "columns": COLUMNS, **settings.pop("model", {})}
    document = {
        "pipeline": "p",
        "source": {"connection": "drop", "batches": {"folders": "(?P<batch>.*)"}},
        "models": {"hcp": model},
        **settings,
    }
    return RunContext(
        pipeline=Pipeline(PipelineSettings.model_validate(document)),
        run_id=run_id,
        batch="b",
        token=token,
        state_id="s",
        source=cast("Source", None),
        lake=Lake(LocalStore(folder / "lake")),
        warehouse=cast("Warehouse", None),
        scratch=folder / "scratch",
        clock=SystemClock(),
        stop=Stop(),
        progress=Silent(),
        facts=facts or {},
    )


def land(ctx: RunContext, path: str, content: bytes) -> FileVersion:
    identity = hashlib.sha256(path.encode()).hexdigest()[:16]
    name = ctx.lake.raw_name("p", "hcp", ctx.batch, identity, path, ctx.token)
    landed = ctx.lake.publish(ctx.place("hcp"), name, lambda into: cast("None", into.write(content)))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return FileVersion(
        pipeline="p",
        path=path,
        version=1,
        id=identity,
        batch=ctx.batch,
        model="hcp",
        status=FileStatus.LANDED,
        size=len(content),
        mtime=now,
        sighted_at=now,
        sha256=landed.sha256,
        raw=name,
    )


def row(number: int, name: str = "Ann", born: str = "1970", modified: str = "2026-01-01T00:00:00Z") -> str:
    return f"{100000000000000000 + number},{name},{born},{modified}"


def text(*rows: str, header: str = HEADER) -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode()


def of_kind(work: Work, kind: ArtifactKind) -> list[Artifact]:
    return [one for one in work.artifacts if one.kind is kind]


def table(ctx: RunContext, artifact: Artifact) -> pa.Table:
    return pyarrow.parquet.read_table(ctx.lake.store.path(artifact.path))


def rule(work: Work, name: str) -> Any:
    return next(one for one in work.rules if one.name == name)


def rejected(ctx: RunContext, work: Work) -> list[tuple[int, int, list[tuple[str, str]]]]:
    found = []
    for artifact in of_kind(work, ArtifactKind.REJECTS):
        if artifact.file_id is not None:
            found += [
                (one["record"], one["line"], [(error["column"], error["code"]) for error in one["errors"]])
                for one in table(ctx, artifact).to_pylist()
            ]
    return found


def test_good_rows_are_typed_and_numbered_and_bad_rows_name_every_failing_column(tmp_path: Path) -> None:
    ctx = context(tmp_path, gate={"max_reject_pct": 100}, validation={"max_file_reject_pct": 100})
    bad = "12,a name of more than twenty characters,1899,2026-1-1"
    file = land(ctx, "b/hcp.csv", text(row(1, '"Zoë\nLee"'), bad, row(2), "1,2", ',Ann,"",'))
    work = validate(ctx, "hcp", [file], [])
    valid = table(ctx, of_kind(work, ArtifactKind.VALID)[0])
    assert valid.schema.names == ["vid__v", "name", "born", "modified", "_record_no", "_line"]
    assert valid.schema.field("modified").type == pa.timestamp("us", tz="UTC")
    assert valid.column("_record_no").to_pylist() == [1, 3]
    assert valid.column("_line").to_pylist() == [None, 5]
    assert valid.column("name").to_pylist() == ["Zoë\nLee", "Ann"]
    assert rejected(ctx, work) == [
        (2, 4, [("vid__v", "pattern"), ("name", "length"), ("born", "min"), ("modified", "type")]),
        (4, 6, [("*", "columns")]),
        (5, 7, [("vid__v", "required")]),
    ]
    assert (work.counts.lines, work.counts.records, work.counts.valid, work.counts.rejected) == (7, 5, 2, 3)
    assert work.details["proof"]["rejected_lines"] == 3
    assert [(one.column, one.code, one.count, one.samples) for one in work.quarantine][:2] == [
        ("*", "columns", 1, ((4, 6),)),
        ("born", "min", 1, ((2, 4),)),
    ]
    ledger = work.files[0]
    assert (ledger.status, ledger.read, ledger.valid, ledger.rejected) == (FileStatus.VALIDATED, 5, 2, 3)


def test_raw_bytes_of_a_reject_are_found_in_the_file_at_the_place_it_names(tmp_path: Path) -> None:
    ctx = context(tmp_path, validation={"max_file_reject_pct": 100})
    content = b"\xef\xbb\xbf" + text(row(1), row(2, born='"x\ny"'), "short").replace(b"\n", b"\r\n")
    work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", content)], [])
    for one in table(ctx, of_kind(work, ArtifactKind.REJECTS)[0]).to_pylist():
        assert content[one["byte_start"] : one["byte_start"] + one["byte_length"]] == one["raw"]
        assert content[: one["byte_start"]].count(b"\n") + 1 == one["line"]


def test_records_are_numbered_and_placed_alike_however_the_file_is_cut_into_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = text(*(row(number, born="x") if number % 7 == 0 else row(number) for number in range(50)), "short")
    found = []
    for size in (64, 1 << 20):
        monkeypatch.setattr(csvfile, "BLOCK", size)
        ctx = context(tmp_path / str(size))
        work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", content)], [])
        found.append([table(ctx, one).to_pylist() for one in work.artifacts])
    assert found[0] == found[1]
    assert [one["record"] for one in found[0][1]] == [*range(1, 51, 7), 51]


def test_a_rejects_artifact_is_made_even_when_nothing_is_rejected(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text(row(1)))], [])
    assert [one.rows for one in work.artifacts] == [1, 0]
    assert all(one.passed is not False for one in work.rules)


def test_the_first_record_of_a_key_stays_over_all_files_in_path_order(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    first = land(ctx, "b/hcp_1.csv", text(row(1, '"a\nb"'), row(2), "", row(1)))
    second = land(ctx, "b/hcp_2.csv", text(row(3), row(2)))
    work = validate(ctx, "hcp", [second, first], [])
    losers = next(one for one in work.artifacts if one.file_id is None)
    found = [(one["path"], one["record_no"], one["line"]) for one in table(ctx, losers).to_pylist()]
    assert found == [("b/hcp_1.csv", 3, 6), ("b/hcp_2.csv", 2, 3)]
    assert (work.counts.valid, work.counts.rejected, work.counts.duplicates) == (3, 2, 2)
    assert [(one.valid, one.rejected) for one in work.files] == [(2, 1), (1, 1)]
    assert {(one.column, one.code) for one in work.quarantine} == {("vid__v", "duplicate_key")}


def test_lines_of_repeated_keys_hold_behind_records_that_were_opened_again(tmp_path: Path) -> None:
    ctx = context(tmp_path, validation={"max_file_reject_pct": 100})
    opened = f'x,"\n{row(1)}\n\n",1970,'
    file = land(ctx, "b/hcp.csv", text(opened, row(2, '"a\nb"'), row(1), row(2)))
    work = validate(ctx, "hcp", [file], [])
    assert rejected(ctx, work) == [
        (1, 2, [("vid__v", "pattern"), ("name", "length")]),
        (3, 5, [("*", "quote")]),
    ]
    losers = next(one for one in work.artifacts if one.file_id is None)
    found = [(one["record_no"], one["line"]) for one in table(ctx, losers).to_pylist()]
    assert found == [(5, 8), (6, 9)]


def test_a_record_that_lost_for_its_key_is_not_opened_again(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    file = land(ctx, "b/hcp.csv", text(row(1), row(1, '"a\nb\nc"')))
    work = validate(ctx, "hcp", [file], [])
    assert (work.counts.lines, work.counts.records, work.counts.duplicates) == (5, 2, 1)


def test_of_a_file_quarantined_whole_a_thousand_rejects_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    ctx = context(tmp_path, validation={"on_bad_file": "publish_rest"}, gate={"max_reject_pct": 100})
    rows = [row(number, born="old" if number % 3 else "1") for number in range(1500)]
    bad = land(ctx, "b/1.csv", text(*rows, "short"))
    good = land(ctx, "b/2.csv", text(row(1)))
    work = validate(ctx, "hcp", [bad, good], [])
    [kept] = [one for one in of_kind(work, ArtifactKind.REJECTS) if one.file_id == bad.id]
    assert table(ctx, kept).column("record").to_pylist() == list(range(1, 1001))
    assert {(one.column, one.code, one.count, one.samples) for one in work.quarantine if one.path == "b/1.csv"} >= {
        ("*", "columns", 1, ((1501, 1502),)),
        ("born", "min", 500, ((1, 2), (4, 5), (7, 8))),
        ("born", "type", 1000, ((2, 3), (3, 4), (5, 6))),
    }
    assert (work.counts.records, work.counts.rejected, work.files[0].rejected) == (1502, 1501, 1501)
    proof = work.details["proof"]["files"][0]
    assert (proof["lines"], proof["rejected_lines"]) == (1502, 1501)


def test_a_file_with_as_many_rejects_that_stays_below_its_limit_keeps_them_all(tmp_path: Path) -> None:
    ctx = context(tmp_path, validation={"max_file_reject_pct": 100})
    work = validate(ctx, "hcp", [land(ctx, "b/1.csv", text(*["short"] * 1200))], [])
    assert of_kind(work, ArtifactKind.REJECTS)[0].rows == 1200


def test_line_ends_of_several_kinds_are_named_in_the_proof(tmp_path: Path) -> None:
    ctx = context(tmp_path, validation={"max_file_reject_pct": 100})
    content = text(row(1), row(2), row(3)).replace(b"Z\n", b"Z\r\n", 1).replace(b"0000003", b"0000\r003")
    [proof] = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", content)], []).details["proof"]["files"]
    assert proof["newlines"] == {"lf": 3, "crlf": 1, "cr": 1}


@pytest.mark.parametrize("at_most", [0, 1000], ids=["grouped", "sorted"])
def test_a_unique_column_is_compared_too_and_its_nulls_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_most: int
) -> None:
    monkeypatch.setattr("ingestkit.stages.validate_keys.SORTED", at_most)
    columns = {**COLUMNS, "name": {"type": "string", "unique": True}}
    ctx = context(tmp_path, model={"columns": columns})
    file = land(ctx, "b/hcp.csv", text(row(1), row(2, ""), row(3, ""), row(4), row(4, "Bob")))
    work = validate(ctx, "hcp", [file], [])
    assert {(one.column, one.code, one.count) for one in work.quarantine} == {
        ("name", "duplicate", 1),
        ("vid__v", "duplicate_key", 1),
    }
    assert work.counts.valid == 3


def test_values_that_only_share_a_hash_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sort = np.sort
    monkeypatch.setattr("ingestkit.stages.validate_keys.np.sort", lambda hashes: sort(hashes % 2))
    ctx = context(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text(row(1), row(2), row(3)))], [])
    assert (work.counts.valid, len(work.artifacts)) == (3, 2)


def test_artifacts_that_hold_are_reused_with_the_same_figures(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    files = [land(ctx, "b/1.csv", text(row(1), row(2), "x")), land(ctx, "b/2.csv", text(row(2), row(9)))]
    first = validate(ctx, "hcp", files, [])
    later = replace(ctx, run_id="p.b.2", token=2)
    second = validate(later, "hcp", files, first.artifacts)
    assert first.skipped is None
    assert second.skipped == "artifacts of p.b.1 hold"
    assert second.artifacts == first.artifacts
    assert (second.counts, second.rules, second.details) == (first.counts, first.rules, first.details)
    assert [(one.read, one.valid, one.rejected) for one in second.files] == [
        (one.read, one.valid, one.rejected) for one in first.files
    ]


@pytest.mark.parametrize("change", ["again", "settings", "gone"])
def test_artifacts_are_made_anew_when_asked_when_the_contract_changed_or_when_they_are_gone(
    tmp_path: Path, change: str
) -> None:
    ctx = context(tmp_path)
    files = [land(ctx, "b/1.csv", text(row(1)))]
    first = validate(ctx, "hcp", files, [])
    later = context(tmp_path, run_id="p.b.2", token=2, model={"columns": {**COLUMNS, "name": {"type": "string"}}})
    later = later if change == "settings" else replace(ctx, run_id="p.b.2", token=2)
    if change == "gone":
        ctx.lake.store.remove(first.artifacts[1].path)
    second = validate(later, "hcp", files, first.artifacts, again=change == "again")
    assert second.skipped is None
    assert {one.run_id for one in second.artifacts} == {"p.b.2"}


def test_only_a_new_file_is_made_beside_reused_ones_and_keys_are_compared_over_both(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    old = land(ctx, "b/2.csv", text(row(1)))
    first = validate(ctx, "hcp", [old], [])
    later = replace(ctx, run_id="p.b.2", token=2)
    second = validate(later, "hcp", [old, land(ctx, "b/1.csv", text(row(1)))], first.artifacts)
    assert first.artifacts[0] in second.artifacts
    assert [(one.path, one.valid) for one in second.files] == [("b/1.csv", 1), ("b/2.csv", 0)]


def test_a_file_over_its_limit_fails_the_model_and_says_what_is_wrong_where(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    file = land(ctx, "b/hcp.csv", text(row(1), row(2, born="old"), row(3, born="x")))
    work = validate(ctx, "hcp", [file], [])
    failed = rule(work, "whole_files")
    assert re.search(r"b/hcp\.csv: 2 of 3 records \(66\.7 %\).*type in born .*line 3", failed.told or "")
    assert (failed.passed, failed.contract, failed.approvable) == (False, True, False)
    assert [(one.status, one.read, one.rejected) for one in work.files] == [(FileStatus.QUARANTINED, 3, 3)]
    assert {(one.column, one.code, one.count) for one in work.quarantine} == {("born", "type", 2), ("*", "file", 1)}
    assert [one.kind for one in work.artifacts] == [ArtifactKind.REJECTS]


def test_a_file_over_its_limit_is_left_out_whole_where_the_rest_may_be_published(tmp_path: Path) -> None:
    ctx = context(tmp_path, validation={"on_bad_file": "publish_rest"})
    bad = land(ctx, "b/1.csv", text(row(1), row(2, born="old"), row(3, born="x")))
    good = land(ctx, "b/2.csv", text(row(1)))
    work = validate(ctx, "hcp", [bad, good], [])
    assert [(one.status, one.valid, one.rejected) for one in work.files] == [
        (FileStatus.QUARANTINED, 0, 3),
        (FileStatus.VALIDATED, 1, 0),
    ]
    assert [one.file_id for one in of_kind(work, ArtifactKind.VALID)] == [good.id]
    assert (work.counts.valid, work.counts.rejected) == (1, 3)
    assert rule(work, "reject_rate").passed is False


def test_rejects_at_the_limit_pass_and_above_it_do_not(tmp_path: Path) -> None:
    for limit, passed in ((25, True), (24.9, False)):
        ctx = context(tmp_path / str(limit), gate={"max_reject_pct": limit})
        file = land(ctx, "b/hcp.csv", text(row(1), row(2), row(3), "x"))
        found = rule(validate(ctx, "hcp", [file], []), "reject_rate")
        assert (found.figure, found.passed) == (25, passed)


@pytest.mark.parametrize(("model", "passed"), [({}, False), ({"allow_empty": True}, True), ({"load": "append"}, True)])
def test_no_rows_empty_a_replace_target_only_where_the_model_allows_it(
    tmp_path: Path, model: dict[str, Any], passed: bool
) -> None:
    ctx = context(tmp_path, model=model)
    work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text())], [])
    assert rule(work, "empty").passed is passed
    assert rule(work, "reject_rate").figure == 0
    assert rule(work, "reject_rate").passed


def test_rows_are_compared_with_the_run_before_where_it_is_known(tmp_path: Path) -> None:
    for before, passed in ((None, None), (2, True), (3, False)):
        facts = {"usual_rows": {"hcp": before}} if before else {}
        ctx = context(tmp_path / str(before), facts=facts, gate={"row_delta_pct": 0})
        work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text(row(1), row(2)))], [])
        assert rule(work, "row_delta").passed is passed


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("name,born,modified", "'vid__v' is missing"),
        (f"{HEADER},other", "'other' is in no contract"),
        (f"{HEADER},name", "'name' stands 2 times"),
    ],
)
def test_a_header_that_the_contract_does_not_cover_fails_the_file(tmp_path: Path, header: str, said: str) -> None:
    ctx = context(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text(row(1), row(2), header=header))], [])
    assert said in (rule(work, "whole_files").told or "")
    [file] = work.files
    assert (file.status, file.read, file.rejected, file.reason) == (
        FileStatus.QUARANTINED,
        2,
        2,
        rule(work, "whole_files").told,
    )
    assert [one.action for one in work.drift] == ["fail"]
    assert work.counts.records == work.counts.rejected == 2


def test_columns_are_taken_by_name_and_an_optional_one_may_be_missing(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    file = land(ctx, "b/hcp.csv", text("Ann,100000000000000001,1970", header="name,vid__v,born"))
    work = validate(ctx, "hcp", [file], [])
    assert table(ctx, work.artifacts[0]).drop(["_record_no", "_line"]).to_pylist() == [
        {"vid__v": "100000000000000001", "name": "Ann", "born": 1970, "modified": None}
    ]
    assert [(one.kind, one.column, one.action) for one in work.drift] == [("missing", "modified", "null")]


def test_a_damaged_archive_fails_the_file_and_leaves_nothing_in_the_lake(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    content = gzip.compress(text(*(row(number) for number in range(2000))), mtime=0)
    file = land(ctx, "b/hcp.csv.gz", content[: len(content) // 2])
    work = validate(ctx, "hcp", [file], [])
    assert "b/hcp.csv.gz is damaged" in (rule(work, "whole_files").told or "")
    assert [one.status for one in work.files] == [FileStatus.QUARANTINED]
    assert [one.name for one in ctx.lake.store.list("")] == [file.raw]
    assert list(ctx.lake.store.inflight("_inflight/")) == []


def test_a_gzip_file_gives_the_rows_of_the_text_within(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/hcp.csv.gz", gzip.compress(text(row(1), row(2)), mtime=0))], [])
    assert work.counts.valid == 2


def test_a_stage_asked_to_stop_ends_before_the_next_block(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    file = land(ctx, "b/hcp.csv", text(row(1)))
    ctx.stop.request(lambda: Interrupted("asked", exit_code=130))
    with pytest.raises(Interrupted):
        validate(ctx, "hcp", [file], [])
    assert threading.active_count() == 1


def test_the_same_run_over_the_same_bytes_makes_the_same_objects_and_adopts_them(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    files = [land(ctx, "b/hcp.csv", text(row(1), row(1), "x"))]
    assert validate(ctx, "hcp", files, []) == validate(ctx, "hcp", files, [])


def test_nothing_is_left_in_the_scratch_folder(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text(row(1), "x"))], [])
    assert list(ctx.scratch.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    ctx.scratch.write_bytes(b"a file")
    with pytest.raises(TargetError, match=r"hcp cannot be validated in .*scratch"):
        validate(ctx, "hcp", [land(ctx, "b/hcp.csv", text(row(1)))], [])


class Killed(BaseException):
    """What a test raises where a process would have ended."""


STEPS = (
    "lake.written",
    "validate.valid_published",
    "validate.rejects_published",
    "validate.file_done",
    "validate.keys_compared",
)


@pytest.mark.parametrize("step", STEPS)
def test_ended_at_any_step_the_next_run_leaves_what_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ctx = context(tmp_path)
    files = [land(ctx, "b/1.csv", text(row(1), "x")), land(ctx, "b/2.csv", text(row(1), row(2)))]
    monkeypatch.setattr(steps, "reached", _end_at(step))
    with pytest.raises(Killed):
        validate(ctx, "hcp", files, [])
    monkeypatch.setattr(steps, "reached", lambda _: None)
    after = validate(replace(ctx, run_id="p.b.2", token=2), "hcp", files, [])
    fresh = context(tmp_path / "fresh", run_id="p.b.2", token=2)
    for file, content in zip(files, (text(row(1), "x"), text(row(1), row(2))), strict=True):
        land(fresh, file.path, content)
    assert after == validate(fresh, "hcp", files, [])


def _end_at(wanted: str) -> Callable[[str], None]:
    def reached(step: str) -> None:
        if step == wanted:
            raise Killed(step)

    return reached


def test_no_value_of_the_data_is_in_what_the_state_will_hold(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    file = land(ctx, "b/hcp.csv", text(row(1), row(2), row(3), row(4, born="SECRET"), row(1)))
    work = validate(ctx, "hcp", [file], [])
    shown: Iterable[Sequence[Any]] = (work.quarantine, work.drift, work.rules, work.files)
    assert "SECRET" not in repr(list(shown))
    assert "SECRET" not in repr(work.details)


def test_a_file_whose_lines_do_not_add_up_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = csvfile.Census.lines
    monkeypatch.setattr(csvfile.Census, "lines", lambda census, newline: counted(census, newline) + 1)
    ctx = context(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/a.csv", text(row(1), row(2)))], [])
    assert (
        "the line proof of b/a.csv does not close: 4 lines, of which 0 preamble, 1 header"
        in rule(work, "whole_files").told
    )


def test_a_file_that_splitter_and_reader_understand_otherwise_fails_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pyarrow.csv.read_csv

    def otherwise(source: Any, *options: Any) -> pa.Table:
        return read(pa.BufferReader(source.read().replace(b"A\nn", b"A n")), *options)

    monkeypatch.setattr(pyarrow.csv, "read_csv", otherwise)
    ctx = context(tmp_path)
    work = validate(ctx, "hcp", [land(ctx, "b/a.csv", text(row(1, '"A\nn"'), row(2)))], [])
    assert (
        "was read in two ways behind line 2: 2 records with 1 line ends in them, and 2 with 0"
        in rule(work, "whole_files").told
    )


@pytest.mark.parametrize("count", [2, 4])
def test_a_trailer_may_count_what_was_opened_again_once_or_as_often_as_its_lines(tmp_path: Path, count: int) -> None:
    ctx = context(tmp_path, model={"csv": {"trailer": r"END (?P<count>\d+)"}}, validation={"max_file_reject_pct": 100})
    content = text(row(1), row(2, '"open'), row(3), row(4, 'shut"'), f"END {count}")
    work = validate(ctx, "hcp", [land(ctx, "b/a.csv", content)], [])
    assert not [one for one in work.rules if one.name == "whole_files"], rule(work, "whole_files").told
    other = text(row(1), row(2, '"open'), row(3), row(4, 'shut"'), "END 3")
    work = validate(ctx, "hcp", [land(ctx, "b/other.csv", other)], [])
    assert "says in its trailer that it has 3 records, where 2 were found" in rule(work, "whole_files").told


def test_a_record_that_loses_for_its_key_and_a_value_names_both_across_batches_of_losers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestkit.stages.validate_keys.BATCH", 1)
    columns = {"vid__v": {}, "mail": {"unique": True}, "phone": {"unique": True}}
    ctx = context(tmp_path, model={"columns": columns}, gate={"max_reject_pct": 100})
    files = [
        land(ctx, "b/a.csv", b"vid__v,mail,phone\n1,a,x\n1,a,x\n2,a,y\n3,c,y\n"),
        land(ctx, "b/b.csv", b"vid__v,mail,phone\n1,d,x\n4,,\n4,,\n5,,z\n"),
    ]
    work = validate(ctx, "hcp", files, [])
    [keys] = [one for one in of_kind(work, ArtifactKind.REJECTS) if one.file_id is None]
    found = [
        (one["path"], one["record_no"], one["line"], [(error["column"], error["value"]) for error in one["errors"]])
        for one in table(ctx, keys).to_pylist()
    ]
    assert found == [
        ("b/a.csv", 2, 3, [("mail", "a"), ("phone", "x"), ("vid__v", "1")]),
        ("b/a.csv", 3, 4, [("mail", "a")]),
        ("b/a.csv", 4, 5, [("phone", "y")]),
        ("b/b.csv", 1, 2, [("phone", "x"), ("vid__v", "1")]),
        ("b/b.csv", 3, 4, [("vid__v", "4")]),
    ]
    assert (work.counts.duplicates, work.counts.valid) == (5, 3)


def test_a_file_that_is_left_early_is_read_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestkit.csvfile.BLOCK", 200)
    ctx = context(tmp_path, facts={"rows_at_most": 3}, gate={"max_reject_pct": 100})
    file = land(ctx, "b/a.csv", text(*(row(number) for number in range(5000))))
    work = validate(ctx, "hcp", [file], [])
    assert work.counts.valid == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("validate")]


def test_whoever_fails_to_write_waits_for_nobody_that_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestkit.csvfile.BLOCK", 200)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    ctx = context(tmp_path)
    file = land(ctx, "b/a.csv", text(*(row(number) for number in range(5000))))
    with pytest.raises(TargetError, match="No space left on device"):
        validate(ctx, "hcp", [file], [])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("validate")]
