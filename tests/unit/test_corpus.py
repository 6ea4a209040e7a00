"""Every nasty file of the corpus through validate: what is taken, what is rejected where, and how its lines add up."""

import gzip
from pathlib import Path

import pytest

from ingestkit import csvfile
from ingestkit.model import FileStatus
from ingestkit.stages.validate import validate
from tests.corpus.nasty import BROKEN, COLUMNS, FILES, Broken, Nasty
from tests.unit.test_validate import context, land, rule, table


@pytest.fixture(params=[16, 50, csvfile.BLOCK], ids=["tiny blocks", "small blocks", "one block"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Records across the borders of blocks must come out as within one."""
    monkeypatch.setattr(csvfile, "BLOCK", request.param)
    return int(request.param)


@pytest.mark.parametrize("nasty", FILES, ids=[one.name for one in FILES])
def test_a_nasty_file_gives_its_good_rows_and_its_rejects_and_adds_up(
    tmp_path: Path, block_size: int, nasty: Nasty
) -> None:
    if block_size < 50 and len(nasty.content) > 100_000:
        pytest.skip("a record of many thousand blocks takes long and shows nothing more")
    ctx = context(
        tmp_path,
        model={"key": [], "columns": nasty.columns, "csv": nasty.csv, "allow_empty": True},
        validation={"max_file_reject_pct": 100},
    )
    work = validate(ctx, "hcp", [land(ctx, nasty.path, nasty.content)], [])
    valid, rejects = (table(ctx, one).to_pylist() for one in work.artifacts)
    assert [(row["id"], row["name"]) for row in valid] == list(nasty.rows)
    assert [
        (
            one["record"],
            one["line"],
            one["raw"],
            ",".join(f"{error['column']}:{error['code']}" for error in one["errors"]),
        )
        for one in rejects
    ] == list(nasty.rejects)
    original = gzip.decompress(nasty.content) if nasty.path.endswith(".gz") else nasty.content
    for one in rejects:
        assert original[one["byte_start"] :].startswith(one["raw"])
        assert one["byte_length"] == len(one["raw"])
    kinds = {"preamble": 0, "header": 1, "blank": 0, "trailer": 0, "rejected": len(nasty.rejects)} | dict(nasty.lines)
    [proof] = work.details["proof"]["files"]
    assert {kind: proof.get(kind, proof.get(f"{kind}_lines")) for kind in kinds} == kinds
    assert proof["lines"] == sum(kinds.values())
    numbers = [row["_record_no"] for row in valid] + [one["record"] for one in rejects]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    before = kinds["preamble"] + kinds["header"]
    lines = [row["_line"] or row["_record_no"] + before for row in valid] + [one["line"] for one in rejects]
    assert len(set(lines)) == len(lines)
    assert [number for _, number in sorted(zip(lines, numbers, strict=True))] == sorted(numbers)


@pytest.mark.parametrize("broken", BROKEN, ids=[one.name for one in BROKEN])
def test_a_file_that_is_not_what_was_agreed_is_refused_whole_and_by_name(
    tmp_path: Path, block_size: int, broken: Broken
) -> None:
    ctx = context(tmp_path, model={"key": [], "columns": COLUMNS, "csv": broken.csv})
    work = validate(ctx, "hcp", [land(ctx, broken.path, broken.content)], [])
    told = rule(work, "whole_files").told
    assert broken.said in told
    assert broken.path in told
    assert [one.status for one in work.files] == [FileStatus.QUARANTINED]
    assert not work.artifacts
    assert [one.name.split("/")[0] for one in ctx.lake.store.list("")] == ["raw"]
