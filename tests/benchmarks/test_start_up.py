"""What it costs to say anything at all: `--help` beside that of a Typer program with nothing in it."""

import stat
import sys
from pathlib import Path

from tests.benchmarks.measure import Program, interleaved, ratio, report, script

EMPTY = """#!{python}
# -*- coding: utf-8 -*-
import re
import sys
from empty import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
MODULE = '''"""A program that does nothing."""

import typer

main = typer.Typer()


@main.command()
def nothing() -> None:
    """Do nothing."""
'''


def test_help_costs_little_more_than_that_of_an_empty_program(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text(MODULE)
    entry = tmp_path / "empty-program"
    entry.write_text(EMPTY.format(python=sys.executable))
    entry.chmod(entry.stat().st_mode | stat.S_IXUSR)
    ours = Program("ingestkit --help", [script("ingestkit"), "--help"], tmp_path)
    empty = Program("empty program --help", [str(entry), "--help"], tmp_path)
    bare = Program("python -c pass", [sys.executable, "-c", "pass"], tmp_path)
    interleaved([ours, empty], 2)
    taken = interleaved([ours, empty, bare], 25)
    wall, processor = (ratio(taken, ours.name, empty.name, fact) for fact in ("seconds", "processor"))
    said = [f"wall {wall:.2f}×, processor {processor:.2f}× an empty Typer program's; meant to be at most 1.3×"]
    report("start up", taken, {"wall": wall, "processor": processor}, said)
