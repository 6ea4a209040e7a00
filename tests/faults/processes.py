"""Processes of ingestkit as the fault tests start, stop, wake and end them."""

import itertools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""So long a process may take: one that hangs fails its test, and one on a machine with much else to do does not."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended; a negative code is the signal that ended it."""

    code: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def told(self) -> list[str]:
        """The lines on standard error that are not of the log."""
        return [line for line in self.err.splitlines() if not line.startswith("{")]

    def is_clear(self) -> None:
        """A failure is told in one line and at most one hint; a success in none."""
        kinds = [line.split(":", maxsplit=1)[0] for line in self.told()]
        assert kinds in ([[]] if self.code <= 0 else [["error"], ["error", "hint"]]), self

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass(frozen=True, slots=True)
class Started:
    launcher: "Launcher"
    pid: int
    out: Path
    err: Path
    watching: Callable[[], None] | None = None
    """Waits for who looks at what the process does, and fails when he did not like it."""

    def wait(self, patience: float = PATIENCE) -> Ended:
        handle = os.pidfd_open(self.pid)
        try:
            if not select.select([handle], [], [], patience)[0]:
                os.kill(self.pid, signal.SIGKILL)
                self.launcher.ask({"wait": self.pid})
                raise AssertionError(f"process {self.pid} did not end within {patience} s\n{self.err.read_text()}")
        finally:
            os.close(handle)
        code = self.launcher.ask({"wait": self.pid})
        if self.watching is not None:
            self.watching()
        return Ended(code, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"))

    def within(self, seconds: float, number: int = signal.SIGKILL) -> Ended:
        """Send it a signal after so long, unless it has ended by then."""
        handle = os.pidfd_open(self.pid)
        try:
            if not select.select([handle], [], [], seconds)[0]:
                self.signal(number)
        finally:
            os.close(handle)
        return self.wait()

    def frozen(self, patience: float = PATIENCE) -> "Started":
        """Wait until it has stopped itself; it must not end before."""
        handle = os.pidfd_open(self.pid)
        try:
            for _ in range(int(patience / 0.01)):
                if self.state() == "T":
                    return self
                if select.select([handle], [], [], 0.01)[0]:
                    break
        finally:
            os.close(handle)
        ended = self.wait()
        raise AssertionError(f"the process ended before it came to where it should freeze: {ended}")

    def state(self) -> str:
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[0]

    def signal(self, number: int) -> None:
        """Nobody has waited for it yet, so the pid is still its own even when it has ended."""
        os.kill(self.pid, number)

    def wake(self) -> None:
        self.signal(signal.SIGCONT)


class Launcher:
    """The process that forks all others."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launch", "--serve"],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def start(
        self,
        folder: Path,
        arguments: Sequence[str],
        fault: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Started:
        number = next(self._numbers)
        out, err = self._folder / f"{number}.out", self._folder / f"{number}.err"
        for path in (out, err):
            # It may be killed before it has opened them.
            path.touch()
        pid = self.ask(
            {
                "folder": str(folder),
                "arguments": list(arguments),
                "fault": dict(fault or {}),
                "environ": dict(environ or {}),
                "out": str(out),
                "err": str(err),
            }
        )
        return Started(self, pid, out, err)

    def ask(self, order: Mapping[str, object]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
