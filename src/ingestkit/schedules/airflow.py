"""A file for Airflow's folder of DAGs: one DAG of one pipeline, whose tasks call the program stage by stage."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from importlib import resources
from typing import Any

from ingestkit.model import Stage
from ingestkit.schedules.call import Call
from ingestkit.settings import PipelineSettings, Schedule

MARK = "written by `ingestkit schedule airflow`"
"""What a file says that may be written over."""
OWNER = "ingestkit"
TAG = "ingestkit"


def dag(settings: PipelineSettings, on_failure: Sequence[str], call: Call) -> str:
    """The file of one pipeline; without a schedule its DAG is only run by hand."""
    name, schedule = settings.pipeline, settings.schedule
    said = schedule or Schedule(cron="0 0 * * *")
    words: Mapping[str, Any] = {
        "PIPELINE": name,
        "PROJECT": str(call.project),
        "CALL": shlex.join(call.words()),
        "STAGES": ["dbt build" if stage is Stage.DBT else stage.value for stage in settings.stages],
        "CRON": None if schedule is None else " ".join(schedule.cron.split()),
        "TIMEZONE": said.timezone,
        "START": said.start,
        "CATCHUP": said.catchup,
        "TIMEOUT": said.timeout,
        "OWNER": settings.owner or OWNER,
        "TAGS": [TAG, *said.tags],
        "WAIT": None if said.wait is None else said.wait.total_seconds(),
        "POKE": said.look.total_seconds(),
        "ON_FAILURE": list(on_failure),
    }
    heading = f"Pipeline {name}: {MARK}; when the pipeline or its schedule changes, write it again."
    return _written("dag.txt", heading, words, "NOTHING_NEW")


def looking(cron: str, call: Call) -> str:
    """The file that looks for what no run can notice."""
    words = {"PROJECT": str(call.project), "CALL": shlex.join(call.words()), "CRON": cron, "TAG": TAG}
    return _written("look.txt", f"What no run can notice: {MARK}.", words, "with DAG(")


def _written(file: str, heading: str, words: Mapping[str, Any], behind: str) -> str:
    """A file that is there, with a heading, and what it is about before the line that begins so."""
    body = resources.files("ingestkit.schedules").joinpath(file).read_text(encoding="utf-8")
    before, after = body.split(f"\n\n{behind}", 1)
    constants = "\n".join(f"{word} = {_literal(value)}" for word, value in words.items())
    return f'"""{heading}"""\n\n{before}\n\n{constants}\n\n{behind}{after}'


def _literal(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    if isinstance(value, date):
        return f"datetime({value.year}, {value.month}, {value.day}, tzinfo=timezone.utc)"
    return repr(value)
