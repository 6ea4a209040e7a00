"""A program of others as a child of this process: heard line by line, stopped when we are, and gone when we are."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ingestkit.ports import Stopping
from ingestkit.transforms import leash

LOOKS = 0.1
"""How often it is looked whether we are asked to stop, in seconds."""
GRACE = 10.0
"""How long a child that is asked to stop may take to take its statements back."""


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    stop: Stopping,
    hear: Callable[[str], None],
    started: Callable[[], None],
) -> int:
    """Run a program to its end; its exit code. Each line of its output is given to `hear`.

    Asked to stop, we ask it with all of its group, end the group after a grace, and raise the reason.
    """
    reading, told = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - of settings, no shell
            [sys.executable, "-I", "-S", str(Path(leash.__file__)), str(told), *command],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(told,),
            start_new_session=True,
        )
    finally:
        os.close(told)
    listener = threading.Thread(target=_listen, args=(process, hear), daemon=True)
    listener.start()
    try:
        started()
        code = _code(process, reading, stop)
    finally:
        assert process.stdin is not None
        # All of the group ends with it.
        process.stdin.close()
        process.wait()
        listener.join()
        os.close(reading)
    stop.check()
    return code


def _code(process: "subprocess.Popen[bytes]", reading: int, stop: Stopping) -> int:
    while not select.select([reading], [], [], LOOKS)[0]:
        if stop.requested:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            select.select([reading], [], [], GRACE)
            return -signal.SIGINT
    said = os.read(reading, 32)
    return int(said) if said else -signal.SIGKILL


def _listen(process: "subprocess.Popen[bytes]", hear: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            hear(line.decode(errors="replace").rstrip("\n"))
