"""Runs ingestkit's command line with a fault in it: ended, stopped or only listened to at a named step.

    python -m tests.faults.launch --kill load.begun:2 -- run opendata

With `--serve` it waits for orders on standard input and forks for each, so that imports are paid once. What it forks is
a process like any other: its own pid, its own connections, nothing opened before.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ingestkit import steps
from ingestkit.cli import main as command_line

# What commands import when they are called.
PRELOADED = (
    "ingestkit.adopt",
    "ingestkit.decide",
    "ingestkit.project",
    "ingestkit.backfill_range",
    "ingestkit.runner",
    "ingestkit.cli.backfill",
    "ingestkit.cli.progress",
    "ingestkit.cli.queue",
    "ingestkit.cli.run",
    "ingestkit.cli.stages",
    "ingestkit.cli.state",
    "ingestkit.observe.logging",
    "ingestkit.sources.files",
    "ingestkit.sources.sftp",
    "ingestkit.states.engine",
    "ingestkit.states.mirrors",
    "ingestkit.states.queue",
    "ingestkit.states.views",
    "sqlalchemy.dialects.postgresql.psycopg",
    "psycopg",
    "ingestkit.stores.local",
    "ingestkit.warehouses.duckdb",
    "ingestkit.warehouses.postgresql",
    "ingestkit.warehouses.snowflake",
)
SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


def listening(fault: Mapping[str, str | None]) -> Callable[[str], None]:
    """What takes the place of `steps.reached`."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()
    points = {
        (step, int(number or 1)): SIGNALS[kind]
        for kind in SIGNALS
        if (said := fault.get(kind))
        for step, _, number in [said.partition(":")]
    }
    record = fault.get("record")

    def reached(step: str) -> None:
        with lock:
            counts[step] += 1
            number = counts[step]
        if record:
            with Path(record).open("a", encoding="utf-8") as file:
                file.write(f"{step}\n")
        if (step, number) in points:
            os.kill(os.getpid(), points[step, number])

    return reached


def work(arguments: list[str], fault: Mapping[str, str | None]) -> int:
    vars(steps)["reached"] = listening(fault)
    return command_line.call(arguments)


def forked(order: dict[str, Any]) -> int | None:
    """The pid of a process that works on the order; in that process itself, None."""
    pid = os.fork()
    if pid:
        return pid
    os.chdir(order["folder"])
    os.environ.update(order["environ"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        handle = os.open(path, flags, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    return None


def serve() -> int:
    for name in PRELOADED:
        import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = forked(order)
        if pid is None:
            code = work(order["arguments"], order["fault"])
            # As the command itself ends; to take all modules apart took longer than the work.
            sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", help="take orders from standard input")
    parser.add_argument("--kill", metavar="STEP:N", help="SIGKILL oneself there")
    parser.add_argument("--freeze", metavar="STEP:N", help="SIGSTOP oneself there")
    parser.add_argument("--record", metavar="FILE", help="write every step that is reached")
    parser.add_argument("arguments", nargs="*")
    said = parser.parse_args()
    if said.serve:
        return serve()
    return work(said.arguments, {"kill": said.kill, "freeze": said.freeze, "record": said.record})


if __name__ == "__main__":
    sys.exit(main())
