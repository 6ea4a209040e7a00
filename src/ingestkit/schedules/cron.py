"""Lines for a crontab: each starts one pipeline when its own schedule says, by the clock of its own time zone."""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ingestkit.errors import ConfigError
from ingestkit.schedules.call import Call
from ingestkit.settings import Schedule

QUARTERS = 4
"""Zones are apart by quarters of an hour."""


@dataclass(frozen=True, slots=True)
class Crontab:
    """Where the lines are to stand: what they call, where that logs, and what clock the daemon goes by."""

    call: Call
    log: Path
    zone: str | None
    """The machine's time zone, where it is known."""
    heeds_zone: bool
    """Whether the daemon heeds CRON_TZ: cronie does, the cron of Debian does not."""

    def lines(self, name: str, schedule: Schedule, command: str) -> Iterator[str]:
        """What says when something is started, and the line that starts it then."""
        fields = " ".join(schedule.cron.split())
        refuse_unknown(name, fields)
        yield f"# {name}: {fields} in {schedule.timezone}"
        if self.heeds_zone:
            yield f"CRON_TZ={schedule.timezone}"
            yield self._line(fields, "", command)
        elif self.zone is not None and same_times(fields, self.zone, schedule.timezone):
            yield self._line(fields, "", command)
        else:
            often, asked = by_its_clock(fields, schedule.timezone, self.zone)
            yield self._line(often, asked, command)

    def _line(self, fields: str, asked: str, command: str) -> str:
        folder = shlex.quote(str(self.call.project))
        told = f"{asked}cd {folder} && {command} >>{shlex.quote(str(self.log))} 2>&1"
        # To cron a bare percent sign is the end of the line.
        return f"{fields} " + told.replace("%", r"\%")


def refuse_unknown(name: str, fields: str) -> None:
    """What some schedulers know of days and cron does not."""
    day, _, weekday = fields.upper().split()[2:]
    if set("L#") & set(day + weekday):
        raise ConfigError(
            f"the schedule of {name}: cron knows no L and no #, and {fields!r} has one",
            hint="name the days otherwise; Airflow knows them: ingestkit schedule airflow",
        )


def same_times(fields: str, one: str, other: str) -> bool:
    """Whether it is the same instants by both clocks: minutes of every hour are, where the zones are hours apart."""
    _, *more = fields.split()
    return same_clock(one, other) or (set(more) == {"*"} and _is_whole(one) and _is_whole(other))


def same_clock(one: str, other: str) -> bool:
    """Whether two zones show the same time throughout the coming years."""
    if one == other:
        return True
    now = datetime.now(UTC)
    zones = [ZoneInfo(name) for name in (one, other)]
    return all(len({at.astimezone(zone).utcoffset() for zone in zones}) == 1 for at in _coming(now))


def _coming(now: datetime) -> Iterator[datetime]:
    return (now + timedelta(days=day) for day in range(366 * 3))


def by_its_clock(fields: str, zone: str, machine: str | None) -> tuple[str, str]:
    """How often any clock may show the time that is meant, and the question whether that of the zone shows it.

    The question is asked by `date`, so that each start that is not meant costs a few milliseconds.
    """
    said = CronSim(fields, datetime.now(UTC))
    minutes, hours = sorted(said.minutes), _one_of(said.hours, 24)
    shown = ["%H", "%d", "%m", "%w"]
    whole = machine is not None and _is_whole(zone) and _is_whole(machine)
    often = minutes if whole else sorted({(at + 15 * shift) % 60 for at in minutes for shift in range(QUARTERS)})
    asked_minutes = "" if whole else f"{_one_of(minutes, 60)} "
    shown = shown if whole else ["%M", *shown]
    days, months = _one_of(said.days, 31), _one_of(said.months, 12)
    weekdays = _weekday({day % 7 for day in said.weekdays if isinstance(day, int)})
    every = ".."
    if said.day_and:
        patterns = [f"{asked_minutes}{hours} {days} {months} {weekdays}"]
    else:
        # Of two that are named either will do.
        patterns = [
            f"{asked_minutes}{hours} {days} {months} .",
            f"{asked_minutes}{hours} {every} {months} {weekdays}",
        ]
    told = " ".join(f"-e '{pattern}'" for pattern in patterns)
    when = ",".join(map(str, often)) if len(often) < 60 else "*"
    return f"{when} * * * *", f"TZ={zone} date '+{' '.join(shown)}' | grep -Eqx {told} && "


def _is_whole(zone: str) -> bool:
    """Whether its clock shows the same minute as that of UTC."""
    offsets = {at.astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0) for at in _coming(datetime.now(UTC))}
    return all(offset % timedelta(hours=1) == timedelta(0) for offset in offsets)


def _one_of(numbers: Collection[int], all_of_them: int) -> str:
    if len(numbers) == all_of_them:
        return ".."
    return "(" + "|".join(f"{number:02}" for number in sorted(numbers)) + ")"


def _weekday(days: Collection[int]) -> str:
    return "." if len(days) == 7 else f"[{''.join(map(str, sorted(days)))}]"
