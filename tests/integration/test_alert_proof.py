"""No kind of alert on any channel tells a secret or a cell; a channel that fails only changes when it is told."""

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from email import message_from_string, policy
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs

import boto3
import pytest

from ingestkit.settings import IncidentKind
from ingestkit.stages import extract
from ingestkit.states.owner import Owner
from tests.certificates import certified
from tests.doubles.receivers import MailServer, Receiver, mailing, receiving
from tests.integration.alerted import CELL
from tests.integration.world import BREAKS, FIRST, SECOND, THIRD, Ended, World

CHECK = ("alerts", "check")
SECRETS = {
    "SLACK_PATH": "sesame-of-slack",
    "HOOK_PATH": "sesame-of-the-hook",
    "HOOK_TOKEN": "lynx-of-the-hook",
    "MAIL_PASSWORD": "hunter-of-the-mail",
    "AWS_SECRET_ACCESS_KEY": "vault-of-amazon",
    "DROP_PASSWORD": "falcon-of-the-drop",
    "WAREHOUSE_PASSWORD": "badger-of-the-warehouse",
}
POSTED = ("slack", "hook", "topic")
CHANNELS = (*POSTED, "mail")
ASKED_OF = {"SLACK_PATH": "slack", "HOOK_PATH": "hook", "HOOK_TOKEN": "hook"}
"""What is said to one channel alone: where it listens, and in its headers."""
DAY = "2026-01-17"
"""The newest of a column by which freshness is judged."""
TITLE = re.compile(r"ingestkit: p: (?:recovered \()?(\w+)")

LONG_AGO, HELD = "{} = (SELECT min(first_at) FROM alert)", ("since", "beat", "expires")


@dataclass(frozen=True, slots=True)
class Everybody:
    """A project with a channel of each kind, and what each was told."""

    world: World
    posts: Mapping[str, Receiver]
    server: MailServer
    certificate: Path
    said: list[str] = field(default_factory=list)
    """By the commands themselves."""

    def settle(
        self, patience: str = "10s", gone: str | None = None, changes: Mapping[str, object] | None = None
    ) -> None:
        """Write the settings; whoever is `gone` listens nowhere."""
        port = {name: int(one.url.split(":")[2].split("/")[0]) for name, one in self.posts.items()}
        port |= {"mail": self.server.port} | ({gone: nobody()} if gone is not None else {})
        place = {name: f"http://127.0.0.1:{port[name]}" for name in POSTED}
        user = {"user": "me", "password": "${env:MAIL_PASSWORD}"}
        reach = {"host": "127.0.0.1", "port": port["mail"], "ca_file": str(self.certificate)}
        channels: dict[str, dict[str, Any]] = {
            "slack": {"type": "slack", "url": f"{place['slack']}/${{env:SLACK_PATH}}"},
            "hook": {"type": "webhook", "url": f"{place['hook']}/${{env:HOOK_PATH}}"},
            "mail": {"type": "email", "sender": "a@example.com", "to": ["b@example.com"], **user, **reach},
            "topic": {"type": "sns", "topic": "arn:aws:sns:eu-central-1:1:t", "region": "eu-central-1"},
        }
        channels["hook"]["headers"] = {"Authorization": "${env:HOOK_TOKEN}"}
        channels["topic"]["endpoint_url"] = place["topic"]
        self.world.settle({"alerts": {"channels": channels, "patience": patience}} | dict(changes or {}))

    def call(self, code: int, *arguments: str) -> Ended:
        ended = self.world.call(*(arguments or ("run", "p")))
        assert ended.code == code, (ended.code, ended.out, ended.err)
        self.said.append(ended.out + ended.err)
        return ended

    def told(self, name: str) -> list[str]:
        """What a channel was told, as whoever reads it sees it."""
        if name == "mail":
            mails = [message_from_string(one, policy=policy.default) for one in self.server.mails]
            return [f"{one['Subject']}\n{one['To']}\n{one.get_content()}" for one in mails]
        bodies = [body.decode() for body in self.posts[name].bodies]
        if name == "topic":
            return ["\n".join(parse_qs(body)["Subject"] + parse_qs(body)["Message"]) for body in bodies]
        facts = [json.loads(body) for body in bodies]
        if name == "slack":
            return [one["text"] for one in facts]
        return [f"ingestkit: {one['pipeline']}: {one['kind']}\n{one}" for one in facts]

    def kinds(self, name: str) -> list[str]:
        found = [TITLE.search(one) for one in self.told(name)]
        return [one[1] for one in found if one]

    def breaks(self) -> None:
        self.world.drop(FIRST, {"20260101/a.csv": BREAKS.replace("one", CELL)})

    def trouble(self, name: str, kind: str | None) -> None:
        """What a channel does with all it is sent from now on."""
        if name == "mail":
            self.server.hangs, self.server.refuses = kind == "hangs", kind == "refuses"
            return
        receiver = self.posts[name]
        receiver.hangs, receiver.drips, receiver.status = kind == "hangs", kind == "drips", 200
        if kind == "refuses":
            receiver.status = 500

    def forget(self) -> None:
        """What was told so far, to nobody's knowledge."""
        self.server.mails.clear()
        for one in self.posts.values():
            one.bodies.clear()


def nobody() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture
def everybody(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Everybody]:
    for name, value in {**SECRETS, "AWS_ACCESS_KEY_ID": "known"}.items():
        monkeypatch.setenv(name, value)
    # What is imported for the first time is not what a channel is waited for.
    boto3.session.Session(region_name="eu-central-1").client("sns")
    (tmp_path / "certificates").mkdir()
    signed = certified(tmp_path / "certificates")
    with ExitStack() as stack:
        posts = {name: stack.enter_context(receiving()) for name in POSTED}
        made = Everybody(world, posts, stack.enter_context(mailing(signed)), signed.certificate)
        made.settle()
        yield made


def test_no_kind_tells_a_secret_or_a_cell_on_any_channel(everybody: Everybody, monkeypatch: pytest.MonkeyPatch) -> None:
    world = everybody.world
    limits = {"success_rate": {"least_pct": 100, "runs": 1}, "overdue": "1h", "freshness": "1h", "repeated": 2}
    alerts = limits | {"slow_from": "1ms", "slow": 1.01, "on_success": "summary"}
    usual = {"alerts": alerts, "models.a.drift": "ignore", "models.b.absent": "warn", "gate.row_delta_pct": 50}
    world.set_up(usual)
    runs_well(everybody)
    breaks_its_contract(everybody)
    breaks_rules(everybody, usual)
    loses_its_places(everybody, usual)
    meets_a_bug(everybody, monkeypatch)
    is_seen_from_outside(everybody)
    every = {*get_args(IncidentKind), "summary"}
    for name in CHANNELS:
        assert set(everybody.kinds(name)) == every, name
        for secret in (CELL, DAY, *SECRETS.values()):
            assert [line for one in everybody.told(name) for line in one.splitlines() if secret in line] == []
    heard = {name: f"{one.headers} {one.bodies!r}" for name, one in everybody.posts.items()}
    heard["mail"] = f"{everybody.server.mails} {everybody.server.in_the_open}"
    kept = [str(world.state("SELECT * FROM alert")), *everybody.said, world.call("alerts", "list").out]
    for name, secret in SECRETS.items():
        assert [one for one in kept if secret in one] == []
        assert [one for one, all_of_it in heard.items() if secret in all_of_it] in ([], [ASKED_OF.get(name)])
    assert [one for one in kept if CELL in one or DAY in one] == []


def runs_well(everybody: Everybody) -> None:
    """Two batches, with a header more than there should be, values in every column, and keys that stand twice."""
    keys = f"{CELL},2026-01-01\n{CELL},2026-01-02\nx,2026-01-01\n"
    first = {"20260101/a.csv": f"id,n,{CELL}\n{CELL},1,{CELL}\n2,2,x\n", "20260101/b.csv": f"id,d\n{keys}"}
    everybody.world.drop(first)
    everybody.call(0)
    # So that all that follows is slow.
    everybody.world.state("UPDATE pipeline_stage SET seconds = 0.0001")
    everybody.world.drop({**SECOND, "20260108/b.csv": f"id,d\n{CELL},2026-01-08\n"})
    everybody.call(0)


def breaks_its_contract(everybody: Everybody) -> None:
    """Cells that are no integers, twice; a header that says other columns; a batch that comes late, without a file."""
    everybody.world.drop({"20260115/a.csv": BREAKS.replace("one", CELL).replace("two", CELL)})
    everybody.call(5)
    everybody.call(5)
    everybody.world.drop({"20260115/a.csv": f"{CELL},{CELL}\n{CELL},1\n"})
    everybody.call(5)
    everybody.world.drop({"20260115/a.csv": f"id,n\n{CELL},12\n4,40\n"})
    everybody.call(0)
    everybody.world.drop({"20251201/b.csv": f"id,d\n{CELL},2025-12-01\n"})
    everybody.call(0)


def breaks_rules(everybody: Everybody, usual: Mapping[str, Any]) -> None:
    """Far more rows than usual; what the sender counted; a rule of one's own that finds cells, or fails by one."""
    world = everybody.world
    rows = "".join(f"{CELL}{one},1\n" for one in range(90))
    world.drop({"20260122/a.csv": f"id,n\n{rows}"})
    everybody.call(6)
    world.drop({"20260122/a.csv": THIRD["20260115/a.csv"].replace("4", CELL)})
    world.set_up({**usual, "source.totals": {"report": "{stem}.json", "counts": "counts"}})
    world.drop({"20260122/a.json": json.dumps({"counts": {"a": 3}, "by": CELL})})
    everybody.call(5)
    world.drop({"20260122/a.json": json.dumps({"counts": {"a": CELL}})})
    everybody.call(4)
    world.drop({"20260122/a.csv": f"id,n\n{CELL},1\n5,2\n", "20260122/a.json": json.dumps({"counts": {"a": 2}})})
    path = world.root / "sql/gate/p/none.sql"
    path.parent.mkdir(parents=True)
    path.write_text("-- models: a\nSELECT id, n FROM a")
    everybody.call(6)
    for failing in (
        "id::integer",
        "strptime(id, '%Y')",
        "json_extract(id, '$.a')",
        "error(id)",
        "now() AT TIME ZONE id",
    ):
        path.write_text(f"-- models: a\nSELECT 1 FROM a WHERE ({failing}) IS NULL")
        everybody.call(3)
    path.unlink()
    world.set_up({**usual, "models.b.gate": {"freshness": {"column": "d", "max_age": "1d"}}})
    world.drop({"20260122/b.csv": f"id,d\n{CELL},{DAY}\n"})
    everybody.call(6)
    world.set_up(usual)
    everybody.call(0)


def loses_its_places(everybody: Everybody, usual: Mapping[str, Any]) -> None:
    """Neither source nor warehouse answers, each of which is spoken to with a password."""
    world = everybody.world
    place = {"host": "127.0.0.1", "port": nobody(), "user": "me"}
    drop = {"type": "sftp", **place, "password": "${env:DROP_PASSWORD}"}
    world.set_up({**usual, "retry.attempts": 1})
    everybody.settle(changes={"connections.drop": drop})
    everybody.call(4)
    server = {"type": "postgresql", **place, "database": "d", "password": "${env:WAREHOUSE_PASSWORD}"}
    everybody.settle(changes={"connections.warehouse": server})
    world.drop({"20260129/a.csv": f"id,n\n{CELL},1\n"})
    everybody.call(7)
    everybody.settle()


def meets_a_bug(everybody: Everybody, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError(f"{CELL} {' '.join(SECRETS.values())}")

    with monkeypatch.context() as patched:
        patched.setattr(extract, "extract", breaks)
        # A bug's own words are for who is at the terminal.
        assert everybody.world.call("run", "p").code == 1


def is_seen_from_outside(everybody: Everybody) -> None:
    """A stage that hangs, a command that fell silent, a hold, batches that are not done, too few that are."""
    world = everybody.world
    hangs = "SET expected_seconds = 1, status = 'RUNNING' WHERE stage = 'extract' AND model = 'a' AND run_id = "
    world.state(f"UPDATE pipeline_stage {hangs} 'p.20260101.1'")
    for table, column in (("pipeline_stage", "started_at"), ("file_manifest", "first_seen"), ("completion", "at")):
        world.make_older(table, column, days=1)
    world.state("UPDATE pipeline SET held_at = (SELECT max(started_at) FROM pipeline_run), held_reason = 'why'")
    everybody.call(0, *CHECK)
    owner = json.dumps(Owner.here().to_json())
    world.state(f"UPDATE lease SET owner = ?, command = 'run p', {', '.join(map(LONG_AGO.format, HELD))}", owner)
    everybody.call(0, *CHECK)


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        *((name, each) for name in CHANNELS for each in ("hangs", "refuses", "gone")),
        *((name, "drips") for name in POSTED),
    ],
)
def test_whoever_does_not_take_it_is_told_later_and_the_others_now(
    everybody: Everybody, name: str, trouble: str
) -> None:
    everybody.breaks()
    everybody.settle(
        gone=name if trouble == "gone" else None, patience="3s" if trouble in ("hangs", "drips") else "10s"
    )
    everybody.trouble(name, trouble)
    began = time.monotonic()
    ended = everybody.call(5)
    # Who hangs would do so for minutes.
    assert time.monotonic() - began < 60
    assert ended.told[0].startswith("error: ")
    waits = [line["event"] for line in ended.log if line["event"].startswith("alerts wait to be sent: ")]
    assert [one.split(": ")[1] for one in waits] == [name]
    for other in set(CHANNELS) - {name}:
        assert everybody.kinds(other) == ["failed"], other
    everybody.call(7, *CHECK)
    # Why it was not taken is told without where it was to go.
    assert [one for one in everybody.said if CELL in one or any(secret in one for secret in SECRETS.values())] == []
    everybody.forget()
    everybody.settle()
    everybody.trouble(name, None)
    everybody.call(0, *CHECK)
    everybody.call(0, *CHECK)
    assert {other: everybody.kinds(other) for other in CHANNELS} == {
        one: ["failed"] * (one == name) for one in CHANNELS
    }
