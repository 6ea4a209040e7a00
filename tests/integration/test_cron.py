"""Lines for cron: each starts its own pipeline, when its own schedule says, in the poor environment of cron."""

import itertools
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from ingestkit.schedules.call import Call
from ingestkit.schedules.cron import Crontab
from ingestkit.settings import Schedule
from tests.docs.shop import BIN
from tests.integration.alerted import SECRET, Told
from tests.integration.world import FIRST, World

ENVIRONMENT = {"HOME": "/root", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
LOS_ANGELES = "America/Los_Angeles"


def lines_of(world: World, *flags: str) -> dict[str, str]:
    """The line that runs each pipeline; those above it only say when."""
    said = world.does("schedule", "cron", "--program", str(BIN / "ingestkit"), *flags)
    return {one["pipeline"]: one["lines"][-1] for one in said["rows"]}


def started(line: str, at: str | None = None, folder: Path | None = None) -> None:
    """What cron does with a line: the five fields are taken away, and a shell runs the rest; `date` tells the time."""
    command = line.split(maxsplit=5)[5].replace(r"\%", "%")
    path = ENVIRONMENT["PATH"]
    if at is not None and folder is not None:
        clock = folder / "bin/date"
        clock.parent.mkdir(exist_ok=True)
        clock.write_text(f'#!/bin/sh\nexec /bin/date -d "{at}" "$@"\n')
        clock.chmod(0o755)
        path = f"{clock.parent}:{path}"
    subprocess.run(["/bin/sh", "-c", command], env={**ENVIRONMENT, "PATH": path}, cwd="/", check=False)


def set_up(world: World, schedules: Mapping[str, Mapping[str, Any]]) -> None:
    (world.root / "config/pipelines/p.yaml").unlink()
    for name, schedule in schedules.items():
        tables = {"models.a.table": f"{name}_a", "models.b.table": f"{name}_b"}
        world.set_up({"schedule": schedule, **tables}, pipeline=name)


def ran(world: World) -> list[str]:
    if not world.database.exists():
        return []
    return [name for (name,) in world.state("SELECT DISTINCT pipeline FROM pipeline_run ORDER BY pipeline")]


def test_each_line_starts_its_own_pipeline_and_no_other(world: World) -> None:
    set_up(world, {"early": {"cron": "0 6 * * *"}, "late": {"cron": "30 18 * * 1-5"}})
    world.drop(FIRST)
    lines = lines_of(world, "--machine-zone", "UTC")
    assert {name: line.split(" cd ")[0] for name, line in lines.items()} == {
        "early": "0 6 * * *",
        "late": "30 18 * * 1-5",
    }
    started(lines["late"])
    assert ran(world) == ["late"]
    started(lines["early"])
    assert ran(world) == ["early", "late"]
    assert '"event": "ended"' in (world.root / "cron.log").read_text()


def test_who_is_told_of_trouble_has_it_looked_for(world: World, told: Told) -> None:
    set_up(world, {"p": {"cron": "0 6 * * *", "timezone": LOS_ANGELES}})
    shown = world.does("schedule", "cron", "--program", str(BIN / "ingestkit"), "--machine-zone", "Europe/Berlin")[
        "rows"
    ]
    line = next(one["lines"][-1] for one in shown if one["pipeline"] is None)
    # Minutes of every hour are the same by both clocks.
    assert line.startswith("*/5 * * * * cd ")
    told.breaks()
    told.run(5)
    told.receiver.bodies.clear()
    world.state("UPDATE alert SET sent_at = NULL")
    (world.root / "config.env").write_text(f"HOOK={told.receiver.url}\nHOOK_TOKEN={SECRET}\n")
    started(line)
    assert [kind for kind, _ in told.kinds] == ["failed"]
    # Who asks for one pipeline is given that.
    assert len(world.does("schedule", "cron", "p")["rows"]) == 1


def test_one_of_another_zone_is_started_when_the_clock_there_says(world: World) -> None:
    set_up(world, {"p": {"cron": "0 18 * * 0", "timezone": LOS_ANGELES}})
    world.drop(FIRST)
    line = lines_of(world, "--machine-zone", "UTC")["p"]
    assert line.startswith("0 * * * * TZ=America/Los_Angeles date ")
    # In winter it is eight hours behind, in summer seven; Sunday there is Monday in UTC.
    for at in ("2026-01-05 01:00 UTC", "2026-01-04 18:00 UTC", "2026-07-06 02:00 UTC", "2026-01-06 02:00 UTC"):
        started(line, at, world.root)
        assert ran(world) == []
    started(line, "2026-07-06 01:00 UTC", world.root)
    assert ran(world) == ["p"]


def test_env_file_profile_and_log_are_those_it_was_asked_with(world: World, tmp_path: Path) -> None:
    set_up(world, {"p": {"cron": "5 6 * * *"}})
    (tmp_path / "with 50%.env").write_text("X=1\n")
    ended = world.call(
        "--env-file", str(tmp_path / "with 50%.env"), "schedule", "cron", "--log", str(tmp_path / "logs of/it.log")
    )
    assert ended.code == 0
    assert r"with 50\%.env' --log-format json run p --if-locked skip >>'" in ended.out
    assert "/logs of/it.log' 2>&1" in ended.out
    line = ended.out.splitlines()[-1]
    (world.root / "logs of").mkdir()
    world.drop(FIRST)
    started(line)
    assert ran(world) == ["p"]


def test_a_cron_that_heeds_zones_is_told_them(world: World) -> None:
    set_up(world, {"p": {"cron": "0 18 * * 0", "timezone": LOS_ANGELES}})
    ended = world.call("schedule", "cron", "--cron-tz")
    assert ended.out.splitlines()[:2] == [f"# p: 0 18 * * 0 in {LOS_ANGELES}", f"CRON_TZ={LOS_ANGELES}"]
    assert ended.out.splitlines()[2].startswith("0 18 * * 0 cd ")


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ({"cron": "0 25 * * *"}, "schedule.cron"),
        ({"cron": "@daily"}, "is no cron: minute, hour, day of the month, month, day of the week"),
        ({"cron": "0 6 * * *", "timezone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"cron": "0 6 L * *"}, "cron knows no L and no #"),
    ],
)
def test_what_is_no_schedule_is_refused(world: World, schedule: Mapping[str, Any], why: str) -> None:
    set_up(world, {"p": schedule})
    assert why in world.refused(3, "schedule", "cron")


def test_a_project_without_schedules_says_how_to_have_one(world: World) -> None:
    assert "pipeline p says no schedule" in world.refused(3, "schedule", "cron")
    assert "no time zone 'Nowhere'" in world.refused(2, "schedule", "cron", "--machine-zone", "Nowhere")


def fires(line: str, at: datetime, machine: str) -> bool:
    """Whether cron would start the line at an instant, and its question would let it."""
    fields, rest = line.split(" TZ=", maxsplit=1)[0], line
    minute = at.astimezone(ZoneInfo(machine)).minute
    said = fields.split()[0]
    if said != "*" and minute not in {int(one) for one in said.split(",")}:
        return False
    asked = re.search(r"TZ=(\S+) date '\+([^']+)' \| grep -Eqx (.*?) && cd", rest.replace(r"\%", "%"))
    assert asked is not None
    shown = at.astimezone(ZoneInfo(asked[1])).strftime(asked[2])
    return any(re.fullmatch(one, shown) for one in re.findall(r"-e '([^']+)'", asked[3]))


@pytest.mark.parametrize("zone", [LOS_ANGELES, "Asia/Kolkata", "Australia/Lord_Howe"])
@pytest.mark.parametrize("machine", ["UTC", "Asia/Kathmandu", "Europe/Berlin"])
@pytest.mark.parametrize(
    "cron", ["0 18 * * 0", "*/20 6-8 * * 1-5", "30 2 1,15 * *", "15 0 13 * 5", "0 12 */7 2 SUN", "5 * * * 7"]
)
def test_a_line_fires_when_its_cron_says_by_the_clock_of_its_zone(cron: str, machine: str, zone: str) -> None:
    call = Call(Path("/opt/ingestkit"), Path("/srv/p"))
    line = [
        *Crontab(call, Path("/srv/p/cron.log"), machine, heeds_zone=False).lines(
            "p", Schedule(cron=cron, timezone=zone), call.run("p")
        )
    ][-1]
    begin = datetime(2026, 2, 1, tzinfo=UTC)
    end = begin + timedelta(days=35)
    local = begin.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - timedelta(minutes=1)
    # As the clock on the wall shows it, without what cron makes of hours that are skipped or come twice.
    wanted = itertools.takewhile(lambda at: at < end.replace(tzinfo=None) + timedelta(days=1), CronSim(cron, local))
    instants = {at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for at in wanted}
    changing = {date(2026, 3, 8)}
    every = (begin + timedelta(minutes=minute) for minute in range(0, 35 * 24 * 60, 5))
    fired = {at for at in every if fires(line, at, machine)}
    there = {at for at in instants if begin <= at < end}
    shown = {at for at in fired ^ there if at.astimezone(ZoneInfo(zone)).date() not in changing}
    assert shown == set()
    assert there
