"""The project of the reference's example, in which documented commands are typed as they stand."""

import os
import shlex
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest

from ingestkit.cli.main import call
from ingestkit.cli.progress import LogProgress
from ingestkit.pipeline import Stop, SystemClock
from ingestkit.project import load
from ingestkit.runner import holding
from tests.docs.pages import below, page

BIN = Path(sys.executable).parent
"""Where the program is."""
ROWS = {
    "2026-01-05": "id,name,since\n1,Ana,2024-01-31\n2,Bo,\n",
    "2026-01-12": "id,name,since\n1,Ana,2024-01-31\n3,Cleo,2025-02-28\n",
    "2026-01-19": "id,name,since\n4,Dee,2025-03-01\n",
}
WRONG = "id,name,since\n1,Ana,2024-01-31\n3,Cleo,2025-02-30\n"


def laid_out(root: Path) -> None:
    """Write the files of the example as the page shows them."""
    for block in below(page("docs/reference.md"), "A pipeline file"):
        first = block.text.split("\n", 1)[0]
        if first.startswith("# config/"):
            path = root / first.removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    (root / "drop").mkdir()


@dataclass(frozen=True, slots=True)
class Project:
    root: Path
    capsys: pytest.CaptureFixture[str] = field(repr=False)

    def types(self, line: str) -> tuple[int, str]:
        """Type one line of the program's; its exit code, and all it said."""
        words = shlex.split(line)
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patched:
            while words[0] != "ingestkit":
                patched.setenv(*words.pop(0).split("=", 1))
            code = call(words[1:])
        shown = self.capsys.readouterr()
        return code, shown.out + shown.err

    def does(self, *lines: str) -> str:
        """Type lines that must succeed; what they said."""
        said = ""
        for line in lines:
            code, told = self.types(line)
            assert code == 0, (line, told)
            said += told
        return said

    def refused(self, line: str, code: int) -> str:
        ended, told = self.types(line)
        assert ended == code, (line, told)
        return told

    def alone_refused(self, line: str, code: int) -> str:
        """The same in a process of its own, which takes what it holds with it."""
        words = [sys.executable, "-c", "from ingestkit.cli.main import main; main()", *shlex.split(line)[1:]]
        ended = subprocess.run(words, check=False, capture_output=True, text=True)
        assert ended.returncode == code, (line, ended.stdout + ended.stderr)
        return ended.stderr

    def drop(self, *batches: str) -> None:
        for batch in batches:
            self.put(batch, ROWS[batch])

    def put(self, batch: str, text: str) -> None:
        path = self.root / "drop" / batch / "customers.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def corrects(self, said: str, better: str) -> None:
        """Change the pipeline file, as with an editor."""
        path = self.root / "config/pipelines/shop.yaml"
        text = path.read_text()
        assert said in text
        path.write_text(text.replace(said, better))

    def customers(self) -> list[int]:
        with duckdb.connect(str(self.root / "state/warehouse.duckdb"), read_only=True) as target:
            return [number for (number,) in target.execute("SELECT id FROM customers ORDER BY id").fetchall()]


def in_a_shell(*lines: str, **environ: str) -> str:
    """Type lines into one shell that stops at the first failure; what they printed to standard output."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environ}
    words = ["bash", "-e", "-c", "\n".join(lines)]
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def hold(root: Path, begun: threading.Event, over: threading.Event, pipeline: str = "shop") -> None:
    """Somebody else at work: the lease is held as a backfill holds it, until it is over."""
    stop = Stop()
    opened = load(root).open(pipeline, clock=SystemClock(stop), stop=stop, progress=LogProgress())
    with holding(opened, opened.pipeline.models, "backfill", "fail"):
        begun.set()
        over.wait(60)
    opened.state.close()
