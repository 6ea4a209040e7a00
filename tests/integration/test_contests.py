"""What there may be one of is one, whoever comes at the same time: the state's own keys see to it."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ingestkit.states import migrate
from tests.services import PostgresServer, postgres

NUMBERS = itertools.count(1)
ROUNDS = 40
CONTESTANT = """
import json, sys
from datetime import UTC, datetime
from sqlalchemy.exc import IntegrityError
from ingestkit.model import Completion, CompletionStatus, RunStatus
from ingestkit.states import rows, runs
from ingestkit.states.engine import StateDatabase
from ingestkit.states.runs import Run

url, who, what = sys.argv[1:]
now = datetime.now(UTC)
db = StateDatabase.open(url, 30)

def opened(conn, number):
    run = Run(f"{who}.{number}", who, "p", "b", 1, "run", ("m",), RunStatus.OPEN, 0, now, now, "run", {}, "", 1)
    runs.open_models(conn, run, [f"m{number}"], 1, redo=False)
    return True

def completed(conn, number):
    done = Completion("p", f"b{number}", "m", CompletionStatus.DONE, None, 1, None, None, f"{who}.{number}")
    return rows.put_completion_absent(conn, done, now)

def won(number):
    try:
        with db.write() as conn:
            return {"opened": opened, "completed": completed}[what](conn, number)
    except IntegrityError:
        return False

print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(won(int(line))), flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A state that is there already, in a file or on a server."""
    url = f"sqlite:///{tmp_path}/state.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("server")
        name = f"contest{next(NUMBERS)}"
        server.does(f"CREATE DATABASE {name}")
        url = server.url(name)
    migrate.upgrade(url)
    return url


def said(rival: "subprocess.Popen[str]") -> str:
    assert rival.stdout is not None
    return rival.stdout.readline().strip()


@contextmanager
def rivals(url: str, what: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two processes that each try what they are told to, and answer whether it was theirs."""
    command = [sys.executable, "-c", CONTESTANT, url]
    with ExitStack() as stack:
        started = []
        for who in ("one", "other"):
            process = subprocess.Popen([*command, who, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            started.append(process)
        assert [said(one) for one in started] == ["ready", "ready"]
        yield started


@pytest.mark.parametrize("what", ["opened", "completed"])
def test_of_two_processes_at_once_one_opens_or_completes_a_model(url: str, what: str) -> None:
    with rivals(url, what) as both:
        for number in range(ROUNDS):
            for one in both:
                assert one.stdin is not None
                one.stdin.write(f"{number}\n")
            for one in both:
                assert one.stdin is not None
                one.stdin.flush()
            assert sorted(said(one) for one in both) == ["false", "true"]
