"""The rule of old work after new, against an oracle that folds batches by what the rule says, whatever comes when."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.integration.world import World

COLUMNS = {"id": {"required": True}, "n": {"type": "integer", "max": 50}, "state": {}}
MODELS = {
    "models": {
        "snap": {"key": ["id"], "load": "replace", "allow_empty": True, "columns": COLUMNS},
        "hist": {"load": "append", "columns": COLUMNS},
        "part": {"key": ["id"], "load": "merge", "columns": COLUMNS, "delete_when": {"state": ["DELETED", "VOID"]}},
    },
    "gate": {"max_reject_pct": 100, "row_delta_pct": "never"},
    "validation": {"max_file_reject_pct": 100},
    "source.late": "load",
}
LAX = 99

Row = tuple[str, int, str | None]


@dataclass
class Oracle:
    """What the targets must hold: told from the rule, not from how it is done."""

    said: dict[str, dict[str, list[Row]]] = field(default_factory=lambda: {"snap": {}, "hist": {}, "part": {}})
    """By model and batch, the valid rows of its latest publish."""
    part: dict[str, tuple[Row, str]] = field(default_factory=dict)

    def publish(self, model: str, batch: str, rows: list[Row]) -> None:
        newer = [rows_ for other, rows_ in self.said[model].items() if other > batch]
        if model == "snap" and newer:
            return
        self.said[model][batch] = rows
        if model == "part":
            spoken = {row[0] for rows_ in newer for row in rows_}
            for row in rows:
                if row[0] in spoken:
                    continue
                if row[2] in ("DELETED", "VOID"):
                    self.part.pop(row[0], None)
                else:
                    self.part[row[0]] = (row, batch)

    def tables(self) -> dict[str, list[tuple[object, ...]]]:
        snap = self.said["snap"]
        newest = max(snap, default=None)
        return {
            "snap": _sorted((*row, newest) for row in (snap[newest] if newest else [])),
            "hist": _sorted((*row, batch) for batch, rows in self.said["hist"].items() for row in rows),
            "part": _sorted((*row, batch) for row, batch in self.part.values()),
        }


def _sorted(rows: object) -> list[tuple[object, ...]]:
    return sorted(rows, key=repr)  # type: ignore[call-overload, no-any-return]


def found(world: World) -> dict[str, list[tuple[object, ...]]]:
    return {model: _sorted(world.table(model, "id", "n", "state", '"_batch"')) for model in ("snap", "hist", "part")}


def text(rows: list[Row]) -> str:
    return "id,n,state\n" + "".join(f"{key},{number},{state or ''}\n" for key, number, state in rows)


def drawn(lot: random.Random) -> list[Row]:
    keys = lot.sample("abcdefgh", lot.randint(1, 5))
    return [(key, lot.randint(1, 99), lot.choice([None, None, "LIVE", "DELETED", "VOID"])) for key in keys]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 20))])
def test_whatever_comes_late_again_or_corrected_the_targets_hold_what_the_rule_says(world: World, seed: int) -> None:
    lot = random.Random(seed)
    limit = 50
    world.set_up(MODELS)
    oracle = Oracle()
    source: dict[str, dict[str, list[Row]]] = {}

    def publish(batch: str, contents: Mapping[str, list[Row]]) -> None:
        for model, rows in contents.items():
            oracle.publish(model, batch, [row for row in rows if row[1] <= limit])

    for number in range(14):
        done = sorted(source)
        what = lot.choice(["new", "new", "late", "restated", "backfill", "from_lake", "replay"]) if done else "new"
        if what in ("new", "late", "restated"):
            batch = f"202601{10 + number * 2}" if what == "new" else lot.choice(done)
            if what == "late":
                batch = f"{int(batch) - 1}"
            contents = {model: drawn(lot) for model in ("snap", "hist", "part")}
            if source.get(batch) == contents:
                continue
            source[batch] = contents
            world.drop({f"{batch}/{model}.csv": text(rows) for model, rows in contents.items()})
            world.does("run")
            publish(batch, contents)
        elif what == "replay":
            limit = LAX
            lax = {f"models.{model}.columns.n.max": LAX for model in ("snap", "hist", "part")}
            world.set_up(MODELS | lax)
            batch = lot.choice(done)
            models = ("snap", "hist", "part") if batch == done[-1] else ("hist", "part")
            said = world.does(
                "quarantine", "replay", "p", "--batch", batch, *(x for m in models for x in ("--model", m))
            )
            publish(batch, {one["model"]: source[batch][one["model"]] for one in said["results"]})
        else:
            batch = lot.choice(done)
            models = ("snap", "hist", "part") if batch == done[-1] else ("hist", "part")
            flags = [flag for model in models for flag in ("--model", model)]
            flags += ["--from-lake"] if what == "from_lake" else []
            world.does("backfill", "p", "--batch", batch, *flags)
            publish(batch, {model: source[batch][model] for model in models})
        assert found(world) == oracle.tables(), (seed, number, what, batch)
    assert world.checkpoint() == max(source)


def test_batch_three_replayed_and_redone_after_batch_seven(world: World) -> None:
    world.set_up(MODELS)
    oracle = Oracle()
    batches: dict[str, dict[str, list[Row]]] = {}
    for number in range(1, 8):
        rows: list[Row] = [("k", number, None), (f"own{number}", number, None), (f"bad{number}", 60, None)]
        if number == 5:
            rows.append(("own3", 5, "DELETED"))
        if number == 6:
            rows.append(("bad3", 6, None))
        batches[f"2026010{number}"] = dict.fromkeys(("snap", "hist", "part"), rows)
        world.drop({f"2026010{number}/{model}.csv": text(rows) for model in ("snap", "hist", "part")})
        world.does("run")
        for model in ("snap", "hist", "part"):
            oracle.publish(model, f"2026010{number}", [row for row in rows if row[1] <= 50])
    third = batches["20260103"]
    for _ in range(2):
        world.does("backfill", "p", "--batch", "20260103", "--model", "hist", "--model", "part")
        assert found(world) == oracle.tables()
    assert "superseded by 20260107 (snap)" in world.refused(2, "backfill", "p", "--batch", "20260103")
    world.set_up(MODELS | {f"models.{model}.columns.n.max": LAX for model in ("snap", "hist", "part")})
    world.does("quarantine", "replay", "p", "--batch", "20260103", "--model", "hist", "--model", "part")
    for model in ("hist", "part"):
        oracle.publish(model, "20260103", third[model])
    assert found(world) == oracle.tables()
    # What batch 5 deleted stays deleted, and what batch 6 said of a row rejected then stands.
    assert ("own3", 3, None, "20260103") not in found(world)["part"]
    assert ("bad3", 6, None, "20260106") in found(world)["part"]


def test_a_contract_corrected_after_its_gate_closed_reuses_what_did_not_change(world: World) -> None:
    world.set_up(MODELS | {"gate": {"max_reject_pct": 10, "row_delta_pct": "never"}})
    rows: list[Row] = [("a", 1, None), ("b", 60, None)]
    other: list[Row] = [("a", 1, None), ("b", 2, None)]
    world.drop({"20260101/snap.csv": text(rows), "20260101/hist.csv": text(other), "20260101/part.csv": text(other)})
    assert "snap: reject_rate is 50" in world.refused(6, "run")
    assert {row["status"] for row in world.does("quarantine", "list")["rows"]} == {"held"}
    assert "is not done for snap" in world.refused(2, "quarantine", "replay", "p", "--batch", "20260101")
    world.set_up(MODELS | {"models.snap.columns.n.max": LAX})
    world.does("run")
    stages = world.stages("p.20260101.2")
    assert stages["validate", "hist"]["status"] == stages["validate", "part"]["status"] == "SKIPPED"
    assert stages["validate", "snap"]["status"] == "SUCCESS"
    assert world.table("snap", "id") == [("a",), ("b",)]
    assert world.does("quarantine", "list")["rows"] == []
    assert (
        "nothing of batch 20260101 waits" in world.does("quarantine", "replay", "p", "--batch", "20260101")["message"]
    )


@pytest.mark.parametrize("state", ["DELETED", "VOID"])
def test_a_row_that_says_its_key_is_gone_removes_it_and_is_counted(world: World, state: str) -> None:
    world.set_up(MODELS)
    world.drop({"20260101/part.csv": text([("a", 1, None), ("b", 2, None)])})
    world.does("run")
    world.drop({"20260102/part.csv": text([("a", 1, state), ("c", 3, None), ("never", 4, state)])})
    world.does("run")
    assert world.table("part", "id") == [("b",), ("c",)]
    counts = world.stages("p.20260102.1")["load", "part"]["counts"]
    assert (counts["loaded"], counts["deleted"], counts["deletes"], counts["target"]) == (1, 1, 2, 2)
    rules = {rule["name"]: rule["passed"] for rule in world.does("runs", "show", "p.20260102.1")["rules"]}
    assert rules["unexplained_loss"]
    assert rules["target_unaccounted"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models.hist.delete_when": {"state": ["X"]}}, "delete_when is of load: merge or replace"),
        ({"models.part.delete_when": {"nothing": ["X"]}}, "'nothing' is not among the columns"),
        ({"models.part.delete_when": {"state": []}}, "at least 1"),
    ],
)
def test_delete_when_is_checked_with_the_configuration(world: World, changes: dict[str, object], said: str) -> None:
    world.set_up(MODELS | changes)
    assert said in world.refused(3, "run")
