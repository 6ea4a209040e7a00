"""Whole processes side by side: wall time, processor time and peak memory, medians and ratios, as text and as JSON."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench"

# Starts a program, waits for it, and writes down what it took; getrusage counts memory in KiB, on macOS in bytes.
START = """
import json, os, sys, time
said, taken, *command = sys.argv[1:]
streams = [(os.POSIX_SPAWN_OPEN, 1, said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
began = time.perf_counter()
process = os.posix_spawn(command[0], command, os.environ, file_actions=streams)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - began
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with open(taken, "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, peak], file)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took."""

    seconds: float
    processor: float
    peak: int
    """Bytes of memory at most."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command line to be measured, and what has to be put right before each run of it."""

    name: str
    command: Sequence[str]
    folder: Path
    before: Callable[[], None] | None = None


def script(name: str) -> str:
    """An entry script of the interpreter that runs the tests."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def cost(program: Program) -> Cost:
    """Run it once. Its output goes to a file, as nobody reading it would slow it down."""
    if program.before is not None:
        program.before()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INGESTKIT_")}
    # What is installed has been compiled, and not only what comes out of a package.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    said, taken = program.folder / "said.txt", program.folder / "taken.json"
    # A child's peak counts what its parent held at the fork, so a process of nothing else starts it.
    command = [sys.executable, "-S", "-E", "-c", START, str(said), str(taken), *program.command]
    subprocess.run(command, cwd=program.folder, env=environment, check=True)
    code, *figures = json.loads(taken.read_text())
    if code != 0:
        raise AssertionError(f"{program.name} ended with {code}:\n{said.read_text(errors='replace')[-3000:]}")
    return Cost(*figures)


def interleaved(programs: Sequence[Program], times: int) -> dict[str, list[Cost]]:
    """Each program in turn, round after round, so that whatever else the machine does meets all of them."""
    taken: dict[str, list[Cost]] = {program.name: [] for program in programs}
    for _ in range(times):
        for program in programs:
            taken[program.name].append(cost(program))
    return taken


def ratio(taken: Mapping[str, Sequence[Cost]], one: str, other: str, fact: str = "seconds") -> float:
    """The median of what one took over what the other took beside it."""
    return float(median(getattr(a, fact) / getattr(b, fact) for a, b in zip(taken[one], taken[other], strict=True)))


def table(taken: Mapping[str, Sequence[Cost]]) -> str:
    lines = [f"{'':32}{'wall':>10}{'least':>10}{'processor':>12}{'peak':>10}"]
    for name, costs in taken.items():
        wall, least = median(one.seconds for one in costs), min(one.seconds for one in costs)
        processor, peak = median(one.processor for one in costs), max(one.peak for one in costs)
        lines.append(f"{name:32}{wall:>8.2f} s{least:>8.2f} s{processor:>10.2f} s{peak / 2**20:>6.0f} MiB")
    return "\n".join(lines)


def report(name: str, taken: Mapping[str, Sequence[Cost]], facts: Mapping[str, float], said: Sequence[str]) -> None:
    """Print what was measured, and keep it for whoever compares."""
    print(f"\n\n{name}: median of {min(len(costs) for costs in taken.values())}", table(taken), *said, sep="\n")
    RESULTS.mkdir(exist_ok=True)
    kept = {"facts": dict(facts), "runs": {one: [asdict(c) for c in costs] for one, costs in taken.items()}}
    (RESULTS / f"{name.replace(' ', '_')}.json").write_text(json.dumps(kept, indent=1) + "\n")
