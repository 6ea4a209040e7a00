import signal
import subprocess
import sys

import pytest

from ingestkit.cli import handler
from ingestkit.pipeline import Stop

WAITING = """
import sys, threading
from ingestkit.cli import handler
from ingestkit.cli.options import Globals
from ingestkit.pipeline import Stop

def work():
    stop = Stop()
    with handler.stopping(stop, lambda said: print(said, file=sys.stderr, flush=True)):
        print("ready", flush=True)
        {work}
    return 0

sys.exit(handler.handle(work, Globals()))
"""
PATIENT = "stop.wait(60)"
DEAF = "threading.Event().wait(60)"
# As a long query in a library: the main thread is in C and no Python handler can run.
IN_C = "import ctypes; libc = ctypes.CDLL(None); [libc.usleep(900_000) for _ in [0] * 60]"


def started(work: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(work=work)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_stops_at_a_safe_point(number: signal.Signals, code: int) -> None:
    process = started(PATIENT)
    process.send_signal(number)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == code
    assert shown.splitlines() == [
        f"{number.name}: stopping at the next safe point; once more ends it at once",
        f"error: stopped by {number.name} at a safe point",
        "hint: run the same command again: it goes on where this one stopped",
    ]


@pytest.mark.parametrize("work", [DEAF, IN_C], ids=["waiting", "inside a library"])
def test_the_second_signal_ends_at_once(work: str) -> None:
    process = started(work)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert "stopping at the next safe point" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.communicate()


def test_signals_are_as_before_when_the_work_is_over() -> None:
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with handler.stopping(Stop(), print):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
