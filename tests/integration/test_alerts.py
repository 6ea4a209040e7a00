"""People are told of what goes wrong once, and of its end, now or later; nobody is told a secret."""

import os
import signal
import subprocess
import sys

import pytest
import yaml

from ingestkit import alerting
from ingestkit.errors import StateError
from ingestkit.stages import extract
from tests.integration.alerted import CELL, SECRET, Told
from tests.integration.world import FIRST, SECOND, THIRD, World

KILLED = """
import os, signal, sys
from ingestkit import alerting
alerting.send = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from ingestkit.cli.main import main
main()
"""
IMPORTED = """
import sys
from ingestkit.cli.main import call
code = call(sys.argv[1:])
print(code, *sorted({"ingestkit.alerting", "ingestkit.states.incidents", "smtplib"} & set(sys.modules)))
"""


def test_a_failure_is_told_once_and_its_end_once(told: Told) -> None:
    told.world.set_up({"owner": "team", "alerts": {"repeated": 9}})
    told.breaks()
    told.run(5)
    told.run(5)
    [message] = told.messages
    assert (message["kind"], message["status"], message["owner"], message["count"]) == ("failed", "open", "team", 1)
    assert message["hint"]
    assert told.run(0, "alerts", "check").out == "nothing new is wrong; 1 open: ingestkit alerts list\n"
    [row] = told.world.does("alerts", "list")["rows"]
    assert (row["status"], row["count"]) == ("open", 2)
    told.heals()
    told.run(0)
    told.run(0)
    assert told.kinds == [("failed", "open"), ("failed", "recovered")]
    assert told.messages[1]["count"] == 2
    assert told.run(0, "alerts", "check").out == "nothing is wrong\n"


def test_neither_secrets_nor_cells_are_told(told: Told) -> None:
    told.world.set_up({"alerts": {"repeated": 2}})
    told.breaks()
    ended = [told.run(5), told.run(5)]
    assert [kind for kind, _ in told.kinds] == ["failed", "repeated"]
    said = b"".join(told.receiver.bodies).decode()
    assert SECRET not in said
    assert CELL not in said
    assert told.receiver.url not in said
    assert told.receiver.headers[0].pop("authorization") == SECRET
    assert SECRET not in str(told.receiver.headers[0])
    kept = str(told.world.state("SELECT message, incident FROM alert"))
    kept += "".join(one.err + one.out for one in ended)
    assert SECRET not in kept
    assert CELL not in kept


def test_failures_in_a_row_are_told_as_such(told: Told) -> None:
    told.breaks()
    for _ in range(4):
        told.run(5)
    assert told.kinds == [("failed", "open"), ("repeated", "open")]
    assert "3 times" in told.messages[1]["text"]
    told.heals()
    told.run(0)
    assert told.kinds[2:] == [("failed", "recovered")]


def test_a_closed_gate_is_told_as_one(told: Told) -> None:
    told.heals()
    told.closes_the_gate()
    told.run(6)
    assert told.kinds == [("gate", "open")]


def test_only_what_is_wanted_is_told(told: Told) -> None:
    told.world.set_up({"alerts": {"kinds": ["gate"], "recovered": False}})
    told.breaks()
    told.run(5)
    assert told.kinds == []


def test_a_bug_is_told_by_its_name_alone(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.heals()

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError(CELL)

    monkeypatch.setattr(extract, "extract", breaks)
    told.run(1)
    [message] = told.messages
    assert message["text"] == "a bug: RuntimeError"


def test_a_command_that_means_nothing_is_no_failure(told: Told) -> None:
    told.heals()
    told.run(2, "run", "p", "--batch", "20990101")
    assert told.kinds == []


@pytest.mark.parametrize("trouble", ["status", "hangs", "gone"])
def test_what_was_not_taken_is_sent_later(told: Told, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told.breaks()
    told.settle({"alerts.patience": "500ms"})
    if trouble == "gone":
        monkeypatch.setenv("HOOK", "http://127.0.0.1:9/hook")
    else:
        setattr(told.receiver, trouble, 500 if trouble == "status" else True)
    ended = told.run(5)
    assert any(line["event"].startswith("alerts wait to be sent: ops: ") for line in ended.log), ended.log
    told.receiver.bodies.clear()
    told.receiver.status, told.receiver.hangs = 200, False
    monkeypatch.setenv("HOOK", told.receiver.url)
    told.settle()
    told.run(0, "alerts", "check")
    assert told.kinds == [("failed", "open")]
    told.run(0, "alerts", "check")
    assert len(told.messages) == 1


def test_who_takes_nothing_is_not_asked_behind_every_batch(told: Told) -> None:
    told.breaks()
    told.receiver.status = 500
    told.run(5)
    told.receiver.bodies.clear()
    told.heals()
    told.world.drop(SECOND, THIRD)
    told.run(0)
    # Once behind the first, and once at the end.
    assert len(told.receiver.bodies) == 2


def test_who_hears_is_told_behind_each_batch_whoever_else_does_not(told: Told) -> None:
    path = told.world.root / "config/settings.yaml"
    said = yaml.safe_load(path.read_text())
    said["alerts"]["channels"]["gone"] = {"type": "webhook", "url": "${file:gone}"}
    path.write_text(yaml.safe_dump(said))
    (told.world.root / "gone").write_text("http://127.0.0.1:9/gone")
    told.world.set_up({"alerts": {"repeated": 2}})
    told.world.drop(FIRST, SECOND, THIRD)
    told.run(0)
    check = told.world.root / "sql/gate/p/none.sql"
    check.parent.mkdir(parents=True)
    check.write_text("-- models: b\nSELECT * FROM b")
    seen: list[int] = []
    told.receiver.hears = lambda: seen.append(told.world.state("SELECT count(*) FROM pipeline_run")[0][0])
    told.run(6, "backfill", "p", "--from", "20260101", "--to", "20260116")
    assert told.kinds[:2] == [("gate", "open"), ("repeated", "open")]
    assert seen[:2] == [4, 5]
    assert told.world.state("SELECT count(*) FROM pipeline_run") == [(6,)]


def test_another_error_is_another_incident(told: Told) -> None:
    told.world.set_up({"alerts": {"repeated": 9}})
    names = ("NO_SUCH_USER", "NO_SUCH_HOST")
    for name in names:
        drop = {"type": "sftp", "host": "drop.invalid", "user": f"${{env:{name}}}", "agent": True}
        told.settle({"connections.drop": drop})
        told.run(3)
        told.run(3)
    assert told.kinds == [("failed", "open")] * 2
    assert [name in one["text"] for name, one in zip(names, told.messages, strict=True)] == [True, True]


def test_a_file_that_cannot_be_read_hides_no_other_pipeline(told: Told) -> None:
    told.world.set_up({"alerts": {"freshness": "1d"}})
    told.run(0, "alerts", "check")
    told.world.make_older("alert", "first_at", days=2)
    (told.world.root / "config/pipelines/a.yaml").write_text("pipeline: a\nsource: {}\n")
    ended = told.run(3, "alerts", "check")
    assert "config/pipelines/a.yaml" in ended.err
    assert told.kinds == [("stale", "open")]


def test_who_is_killed_before_it_was_sent_leaves_it_to_the_next(told: Told) -> None:
    told.breaks()
    command = [sys.executable, "-c", KILLED, "--project", str(told.world.root), "run", "p"]
    killed = subprocess.run(command, capture_output=True, check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert told.messages == []
    told.run(0, "alerts", "check")
    assert told.kinds == [("failed", "open")]


def test_a_channel_that_lacks_its_secret_fails_no_run(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.breaks()
    told.run(5)
    told.heals()
    monkeypatch.delenv("HOOK_TOKEN")
    ended = told.run(0)
    assert any("HOOK_TOKEN" in line["event"] for line in ended.log)


def test_a_secret_that_is_not_there_is_told(told: Told) -> None:
    told.settle(
        {"connections.drop": {"type": "sftp", "host": "drop.invalid", "user": "${env:NO_SUCH_USER}", "agent": True}}
    )
    told.run(3)
    told.run(3)
    assert told.kinds == [("failed", "open")]
    assert "NO_SUCH_USER" in told.messages[0]["text"]
    told.settle()
    told.heals()
    told.run(0)
    assert told.kinds[1:] == [("failed", "recovered")]


def test_what_nobody_did_for_too_long_is_seen_by_looking(told: Told) -> None:
    told.world.set_up({"alerts": {"freshness": "1d"}})
    told.run(0, "alerts", "check")
    assert told.kinds == []
    # It never ran: it is looked at for two days.
    told.world.make_older("alert", "first_at", days=2)
    told.run(0, "alerts", "check")
    assert told.kinds == [("stale", "open")]
    assert "nothing was ever done" in told.messages[0]["text"]
    told.heals()
    told.run(0)
    told.run(0, "alerts", "check")
    assert told.kinds[1:] == [("stale", "recovered")]
    told.world.make_older("completion", "at", days=2)
    told.run(0, "alerts", "check", "p")
    assert told.kinds[2:] == [("stale", "open")]


def test_a_command_that_fell_silent_is_seen_by_looking(told: Told) -> None:
    told.heals()
    step = "import os, signal; from ingestkit import steps\n"
    step += "steps.reached = lambda name: os.kill(os.getpid(), signal.SIGKILL)\n"
    command = [sys.executable, "-c", f"{step}from ingestkit.cli.main import main; main()"]
    killed = subprocess.run([*command, "--project", str(told.world.root), "run", "p"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told.run(0, "alerts", "check")
    assert told.kinds == []
    told.world.make_older("lease", "expires", days=1)
    told.run(0, "alerts", "check")
    assert told.kinds == [("silent", "open")]
    told.run(0)
    assert told.kinds[1:] == [("silent", "recovered")]


def test_a_hold_that_is_left_standing_is_seen_by_looking(told: Told) -> None:
    told.heals()
    told.run(0)
    told.world.state("UPDATE pipeline SET held_at = (SELECT max(ended_at) FROM pipeline_run), held_reason = 'why'")
    told.run(0, "alerts", "check")
    told.run(0, "alerts", "check")
    assert told.kinds == [("held", "open")]
    assert "resume" in told.messages[0]["hint"]
    told.run(0, "resume", "p", "--reason", "well")
    told.run(0, "alerts", "check")
    assert told.kinds[1:] == [("held", "recovered")]


def test_what_goes_on_is_told_again_where_that_is_wanted(told: Told) -> None:
    told.world.set_up({"alerts": {"remind": "1d"}})
    told.breaks()
    told.run(5)
    told.world.make_older("alert", "sent_at", days=2)
    told.run(5)
    assert told.kinds == [("failed", "open"), ("failed", "open")]
    assert told.messages[1]["count"] == 2


def test_a_test_tells_who_took_it(told: Told) -> None:
    told.run(0, "alerts", "test")
    assert told.kinds == [("test", "test")]
    told.receiver.status = 500
    assert "answered 500" in told.run(7, "alerts", "test").out


def test_nothing_is_imported_where_nobody_is_told(world: World) -> None:
    world.drop(FIRST, SECOND)
    command = [sys.executable, "-c", IMPORTED, "--project", str(world.root), "run", "p"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "0"
    assert world.state("SELECT count(*) FROM alert") == [(0,)]


def test_the_state_that_does_not_answer_fails_nothing(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.heals()
    monkeypatch.setattr(alerting, "failure", _no_state)
    assert any("alerts were not sent" in line["event"] for line in told.run(0).log)


def _no_state(*_: object) -> None:
    raise StateError("gone")


def test_a_channel_that_is_not_there_and_an_open_secret_are_refused(told: Told) -> None:
    told.world.set_up({"alerts": {"channels": ["opz"]}})
    assert "there is no channel 'opz'" in told.world.refused(3, "run", "p")
    told.world.set_up()
    told.world.settle({"alerts": {"channels": {"ops": {"type": "slack", "url": f"https://x.invalid/{SECRET}"}}}})
    said = told.world.refused(3, "run", "p")
    assert "is a secret" in said
    assert SECRET not in said
