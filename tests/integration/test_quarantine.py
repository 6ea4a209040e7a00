"""What was rejected: looked at, taken in again under another contract, given up; for old batches by the redo rule."""

import json
from datetime import date

import pytest

from tests.integration.world import BREAKS, FIRST, SECOND, World

MINE = ("--reason", "seen", "--by", "me")
BAD = {
    "20260101/a.csv": "id,n\n1,10\n2,77\n3,88\n",
    "20260101/b.csv": "id,d\nx,2026-01-01\ny,2026-07-01\nx,2026-01-02\n",
}
STRICT = {
    "gate.max_reject_pct": 100,
    "validation.max_file_reject_pct": 100,
    "models.a.columns.n.max": 50,
    "models.b.columns.d.max": "2026-06-01",
}


@pytest.fixture
def strict(world: World) -> World:
    world.set_up(STRICT)
    return world


def reasons(world: World, *flags: str) -> dict[tuple[str | None, str, str], tuple[int, str]]:
    rows = world.does("quarantine", "list", *flags)["rows"]
    return {(row["model"], row["column"], row["code"]): (row["records"], row["status"]) for row in rows}


def held(world: World, run_id: str) -> set[str]:
    return {row["status"] for row in world.does("runs", "show", run_id)["quarantine"]}


def test_rejects_are_listed_by_reason(strict: World) -> None:
    world = strict
    world.drop(BAD, {"20260101/readme.md": "not data"})
    world.does("run")
    assert reasons(world) == {
        ("a", "n", "max"): (2, "open"),
        ("b", "d", "max"): (1, "open"),
        ("b", "id", "duplicate_key"): (1, "open"),
        (None, "*", "unmapped"): (None, "open"),
    }
    assert set(reasons(world, "--model", "a")) == {("a", "n", "max")}
    assert set(reasons(world, "--code", "duplicate_key")) == {("b", "id", "duplicate_key")}
    assert reasons(world, "--batch", "20260108") == {}
    assert "nothing waits in quarantine" in world.call("quarantine", "list", "--status", "held").out
    assert "--status 'lost' is unknown" in world.refused(2, "quarantine", "list", "--status", "lost")


def test_rejected_records_are_shown_with_place_reasons_and_fields(strict: World) -> None:
    world = strict
    world.drop(BAD)
    world.does("run")
    found = world.does("quarantine", "show", "--model", "a")["rows"]
    assert [(one["path"], one["record"], one["line"], one["fields"]) for one in found] == [
        ("20260101/a.csv", 2, 3, {"id": "2", "n": "77"}),
        ("20260101/a.csv", 3, 4, {"id": "3", "n": "88"}),
    ]
    [error] = found[0]["errors"]
    assert (error["column"], error["code"], error["value"]) == ("n", "max", "77")
    assert (found[0]["raw"], found[0]["byte_start"], found[0]["byte_length"]) == ("2,77", 10, 4)
    [twice] = world.does("quarantine", "show", "--code", "duplicate_key")["rows"]
    assert (twice["record"], twice["line"], twice["fields"]) == (3, 4, {"id": "x", "d": "2026-01-02"})
    assert len(world.does("quarantine", "show", "--limit", "1")["rows"]) == 1
    assert "more than 50" in world.call("quarantine", "show", "--model", "a").out


def test_records_are_shown_of_no_object_that_others_have_put_there(strict: World) -> None:
    world = strict
    world.drop(BAD)
    world.does("run")
    [(rejects,)] = world.state("SELECT path FROM artifact WHERE model = 'a' AND kind = 'rejects'")
    (world.root / "lake" / rejects).write_bytes(bytes((world.root / "lake" / rejects).stat().st_size))
    told = world.refused(7, "quarantine", "show", "--model", "a")
    assert "as it was made" in told
    assert "ingestkit backfill p --batch 20260101 --from-lake" in told


def test_what_tells_of_a_person_is_masked_until_it_is_asked_for(world: World) -> None:
    world.set_up(STRICT | {"models.a.columns.n.pii": True, "models.b.columns.id.pii": True})
    world.drop(BAD)
    world.does("run")
    said = world.call("quarantine", "show", "--output", "json").out
    assert not any(f'"{secret}"' in said for secret in ("2,77", "77", "y"))
    [first, *_] = world.does("quarantine", "show", "--model", "a")["rows"]
    assert (first["fields"], first["raw"], first["errors"][0]["value"]) == ({"id": "2", "n": "***"}, "***", "***")
    [first, *_] = world.does("quarantine", "show", "--model", "a", "--reveal")["rows"]
    assert (first["fields"], first["raw"], first["errors"][0]["value"]) == ({"id": "2", "n": "77"}, "2,77", "77")


def test_a_column_is_masked_however_its_file_spells_it_and_whatever_its_format(world: World) -> None:
    pii = {"models.a.columns.n.pii": True, "models.a.header": {"case": "ignore"}, "models.b.columns.d.pii": True}
    world.set_up(STRICT | pii | {"models.b.header": {"case": "ignore"}})
    world.drop({"20260101/a.csv": "ID,N\n1,10\n2,77\n", "20260101/b.jsonl": '{"id": "x", "D": "2026-7-1"}\n'})
    world.drop({"20260101/b.csv": "id,d\nz,2026-01-01\n"})
    world.does("run")
    [first, second] = world.does("quarantine", "show")["rows"]
    assert (first["path"], first["fields"], first["raw"]) == ("20260101/a.csv", {"id": "2", "n": "***"}, "***")
    assert (second["path"], second["fields"], second["raw"]) == ("20260101/b.jsonl", {"id": "x", "d": "***"}, "***")
    [_, second] = world.does("quarantine", "show", "--reveal")["rows"]
    assert (second["fields"], second["raw"]) == ({"id": "x", "d": "2026-7-1"}, '{"id": "x", "D": "2026-7-1"}')


def test_a_rejected_record_is_shown_in_the_encoding_of_its_file(world: World) -> None:
    world.set_up(STRICT | {"models.a.csv": {"encoding": "utf-16"}})
    world.drop({"20260101/a.csv": "id,n\nx,1\né,77\n".encode("utf-16")})
    world.does("run")
    [first] = world.does("quarantine", "show")["rows"]
    assert (first["fields"], first["raw"]) == ({"id": "é", "n": "77"}, "é,77")


def test_who_may_see_a_column_does_not_make_its_rows_anew(strict: World) -> None:
    world = strict
    world.drop(BAD)
    world.does("run")
    world.set_up(STRICT | {"models.a.columns.n.pii": True})
    said = world.does("quarantine", "replay", "p", "--batch", "20260101", "--model", "a")
    assert "has not changed since" in said["message"]


def test_rejects_that_fit_todays_contract_are_taken_in_again(strict: World) -> None:
    world = strict
    world.drop(BAD)
    world.does("run")
    world.set_up(STRICT | {"models.b.columns.d.max": "2026-12-01"})
    drop = world.root / "drops"
    drop.rename(world.root / "gone")
    said = world.does("quarantine", "replay", "p", "--batch", "20260101")
    assert said["message"] == "batch 20260101 was replayed: 1 record that was rejected is valid now, 1 still rejected"
    assert world.table("b", "id", "d") == [("x", date(2026, 1, 1)), ("y", date(2026, 7, 1))]
    assert [one["model"] for one in said["results"]] == ["b"]
    assert world.run_row("p.20260101.2")["kind"] == "replay"
    assert reasons(world) == {("a", "n", "max"): (2, "open"), ("b", "id", "duplicate_key"): (1, "open")}
    assert held(world, "p.20260101.1") == {"open", "replayed"}
    (world.root / "gone").rename(drop)
    assert world.does("run")["status"] == "nothing new"
    again = world.does("quarantine", "replay", "p", "--run-id", "p.20260101.2")
    assert "the contract of a, b has not changed since" in again["message"]


def test_a_replay_needs_rejects_a_batch_and_its_end(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    assert (
        "nothing of batch 20260101 waits" in world.does("quarantine", "replay", "p", "--batch", "20260101")["message"]
    )
    assert "needs either --batch or --run-id" in world.refused(2, "quarantine", "replay", "p")
    assert "waits in quarantine for want of a model" in world.refused(
        2, "quarantine", "replay", "p", "--batch", "20260101", "--as", "a"
    )
    world.set_up(STRICT | {"gate.max_reject_pct": 1})
    world.drop({"20260108/a.csv": BAD["20260101/a.csv"]})
    world.refused(6, "run")
    assert reasons(world) == {("a", "n", "max"): (2, "held")}
    assert world.does("quarantine", "show")["rows"][0]["path"] == "20260108/a.csv"


def test_a_snapshot_that_a_newer_one_replaced_is_not_replayed(strict: World) -> None:
    world = strict
    world.drop(BAD, SECOND)
    world.does("run")
    world.set_up(STRICT | {"models.a.columns.n.max": 99, "models.b.columns.d.max": "2026-12-01"})
    said = world.refused(2, "quarantine", "replay", "p", "--batch", "20260101")
    assert "batch 20260101 is superseded by 20260108 (a)" in said
    assert "--model b" in said
    world.does("quarantine", "replay", "p", "--batch", "20260101", "--model", "b")


def test_an_append_gets_its_own_rows_again_and_a_merge_only_keys_nobody_newer_has(world: World) -> None:
    columns = {"id": {"required": True}, "n": {"type": "integer", "max": 9}}
    models = {
        "models.c": {"load": "append", "columns": columns},
        "models.m": {"load": "merge", "key": ["id"], "columns": columns},
    }
    world.set_up(STRICT | models)
    world.drop({"20260101/c.csv": "id,n\n1,1\n2,12\n", "20260101/m.csv": "id,n\nk,11\nl,12\nm,3\n"})
    world.drop({"20260108/c.csv": "id,n\n1,5\n", "20260108/m.csv": "id,n\nk,1\n"})
    world.does("run")
    world.set_up(STRICT | models | {"models.c.columns.n.max": 99, "models.m.columns.n.max": 99})
    world.does("quarantine", "replay", "p", "--batch", "20260101")
    assert world.table("c", "id", "n", '"_batch"') == [
        ("1", 1, "20260101"),
        ("1", 5, "20260108"),
        ("2", 12, "20260101"),
    ]
    assert world.table("m", "id", "n", '"_batch"') == [
        ("k", 1, "20260108"),
        ("l", 12, "20260101"),
        ("m", 3, "20260101"),
    ]
    [done] = [
        one
        for one in world.does("runs", "show", "p.20260101.2")["stages"]
        if (one["stage"], one["model"]) == ("load", "m")
    ]
    assert done["counts"]["superseded"] == 1
    assert world.checkpoint() == "20260108"


def test_a_merge_gets_a_row_again_whose_key_a_newer_batch_only_had_among_its_rejects(world: World) -> None:
    unique = {"models.b.columns.mail": {"unique": True}, "models.b.columns.d.max": "2026-06-01"}
    world.set_up(STRICT | unique)
    world.drop({"20260101/b.csv": "id,d,mail\n1,2026-01-01,a@x\n5,2026-07-01,five@x\n"})
    world.drop({"20260108/b.csv": "id,d,mail\n1,2026-01-08,a@x\n5,2026-01-08,a@x\n"})
    world.does("run")
    assert world.table("b", "id") == [("1",)]
    world.set_up(STRICT | unique | {"models.b.columns.d.max": "2026-12-01"})
    world.does("quarantine", "replay", "p", "--batch", "20260101")
    assert world.table("b", "id", "d") == [("1", date(2026, 1, 8)), ("5", date(2026, 7, 1))]


def test_a_file_quarantined_whole_is_taken_in_when_it_fits(world: World) -> None:
    whole = STRICT | {"validation.on_bad_file": "publish_rest", "validation.max_file_reject_pct": 50}
    world.set_up(whole)
    world.drop(FIRST, {"20260101/a_2.csv": "id,n\n7,70\n8,80\n9,9\n"})
    world.does("run")
    assert reasons(world)["a", "*", "file"] == (3, "open")
    world.set_up(whole | {"validation.max_file_reject_pct": 100, "models.a.columns.n.max": None})
    world.does("quarantine", "replay", "p", "--batch", "20260101")
    assert world.statuses("--model", "a") == {"20260101/a.csv": "loaded", "20260101/a_2.csv": "loaded"}


def test_rejects_are_given_up_by_a_decision(strict: World) -> None:
    world = strict
    world.drop(BAD, {"20260101/readme.md": "not data"})
    world.does("run")
    assert "which rejects?" in world.refused(2, "quarantine", "discard", "p", "--yes", *MINE)
    said = world.does("quarantine", "discard", "p", "--model", "a", "--yes", *MINE)
    assert said["message"] == "1 reason for rejects and 0 files given up by decision 1"
    assert reasons(world, "--model", "a") == {}
    assert reasons(world, "--status", "discarded") == {("a", "n", "max"): (2, "discarded")}
    world.does("quarantine", "discard", "p", "--path", "20260101/readme.md", "--yes", *MINE)
    assert (None, "*", "unmapped") not in reasons(world)
    assert world.does("run")["status"] == "nothing new"
    assert "nothing waits there" in world.does("quarantine", "discard", "p", "--model", "a", "--yes", *MINE)["message"]
    copies = sorted((world.root / "lake/_decisions/p").iterdir())
    assert [json.loads(copy.read_text())["kind"] for copy in copies] == ["discard", "discard"]
    world.lose_state()
    world.does("state", "adopt", "p", "--reason", "lost", "--yes")
    assert ("a", "n", "type") not in reasons(world)
    assert ("b", "d", "max") in reasons(world)


def test_a_key_is_masked_whatever_its_columns_are_called(world: World) -> None:
    columns = {"id": {"required": True}, "Name, First": {"pii": True, "max_length": 5}}
    world.set_up(STRICT | {"models.a": {"key": ["id", "Name, First"], "columns": columns}})
    world.drop({"20260101/a.csv": 'id,"Name, First"\n1,Constantine\n2,Bo\n2,Bo\n'})
    world.does("run")
    shown = world.does("quarantine", "show")["rows"]
    assert [error["value"] for row in shown for error in row["errors"]] == ["***", "***"]


def test_what_an_attempt_finds_again_is_listed_once(world: World) -> None:
    world.drop({"20260101/a.csv": "id,n\n1,10\n2,x\n"})
    world.does("run")
    lax = {"validation.max_file_reject_pct": 100}
    world.set_up(lax | {"models.a.columns.n": {"type": "string"}, "models.a.columns.id.min_length": 9})
    world.refused(6, "quarantine", "replay", "p", "--batch", "20260101")
    found = [(row["code"], row["status"], row["records"]) for row in world.does("quarantine", "list")["rows"]]
    assert found == [("length", "held", 2), ("type", "open", 1)]
    world.does("quarantine", "discard", "p", "--batch", "20260101", "--code", "length", *MINE, "--yes")
    assert reasons(world) == {("a", "n", "type"): (1, "open")}


def test_a_file_kept_out_whole_is_listed_once(world: World) -> None:
    world.set_up({"validation.on_bad_file": "publish_rest", "gate.max_reject_pct": 100})
    world.drop(FIRST, {"20260101/a_2.csv": "id,m\n7,7\n"})
    world.does("run")
    [row] = world.does("quarantine", "list")["rows"]
    assert (row["column"], row["code"], row["records"], row["files"]) == ("*", "file", 1, 1)


def test_a_replay_that_failed_behind_validate_is_taken_up_again(world: World) -> None:
    world.set_up({"models.b.load": "append"})
    world.drop({"20260101/b.csv": "id,d\nx,2026-01-01\ny,soon\n"})
    world.does("run")
    world.set_up({"models.b.load": "append", "models.b.columns.d": {"type": "string"}})
    assert "VARCHAR" in world.refused(7, "quarantine", "replay", "p", "--batch", "20260101")
    world.target_does("ALTER TABLE b ALTER COLUMN d TYPE VARCHAR")
    world.does("quarantine", "replay", "p", "--batch", "20260101")
    assert world.table("b", "id", "d") == [("x", "2026-01-01"), ("y", "soon")]


def test_a_batch_that_is_stepped_over_leaves_nothing_held(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    world.drop({"20260101/a.csv": BREAKS})
    world.refused(5, "run")
    assert ("a", "n", "type") in reasons(world)
    world.does("skip", "p", "--batch", "20260101", *MINE)
    assert reasons(world) == {}


def test_what_was_given_up_stays_given_up_when_its_batch_is_done_again(strict: World) -> None:
    world = strict
    world.drop(BAD, {"20260101/a.csv": "id,n\n1,10\n2,77\n3,88\n4,30\n"})
    world.does("run")
    world.does("quarantine", "discard", "p", "--batch", "20260101", "--model", "a", *MINE, "--yes")
    world.does("backfill", "p", "--batch", "20260101")
    assert {reason[0] for reason in reasons(world)} == {"b"}
    world.set_up(STRICT | {"models.a.columns.n.max": 20})
    world.does("backfill", "p", "--batch", "20260101", "--model", "a")
    # There is more of it now.
    assert reasons(world)["a", "n", "max"] == (3, "open")


def test_a_record_that_lost_for_its_key_is_shown_with_its_bytes(world: World) -> None:
    world.set_up(STRICT | {"models.a.csv": {"encoding": "utf-16"}})
    world.drop({"20260101/a.csv": 'id,n\né,1\n"é",2\n'.encode("utf-16")})
    world.drop({"20260101/b.jsonl": '{"id": "x"}\n{"id": "y"}\n{"id": "x", "d": null}\n'})
    world.does("run")
    first, second = world.does("quarantine", "show")["rows"]
    assert (first["line"], first["raw"], first["fields"]) == (3, '"é",2', {"id": "é", "n": "2"})
    content = (world.root / "drops/20260101/a.csv").read_bytes()
    assert content[first["byte_start"] :][: first["byte_length"]] == '"é",2'.encode("utf-16-le")
    assert (second["line"], second["raw"], second["byte_start"]) == (3, '{"id": "x", "d": null}', 24)


def test_a_backfill_that_fails_leaves_the_ledger_as_the_target_is(world: World) -> None:
    world.drop(FIRST)
    world.does("run")
    before = world.files("--model", "a")
    world.set_up({"models.a.columns.n": {"type": "date"}})
    world.refused(5, "backfill", "p", "--batch", "20260101", "--model", "a")
    assert world.files("--model", "a") == before
    assert world.does("quarantine", "list")["rows"] == [] or reasons(world) == {("a", "n", "type"): (2, "held")}


def test_a_row_of_a_merge_that_a_newer_batch_kept_out_is_not_counted_as_loaded(world: World) -> None:
    world.drop(FIRST, SECOND)
    world.does("run")
    world.drop({"20260101/b.csv": "id,d\nx,2026-01-03\ny,2026-01-02\n"})
    world.does("run")
    [newest] = [one for one in world.files("--batch", "20260101", "--model", "b") if one["version"] == 2]
    assert (newest["valid"], newest["loaded"]) == (2, 1)
