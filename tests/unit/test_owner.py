"""A process as the name of its scratch folder."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ingestkit.recover import remove_scratch
from ingestkit.states.owner import Owner


def test_only_what_processes_that_are_gone_left_in_scratch_is_removed(tmp_path: Path) -> None:
    here = Owner.here()
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = replace(here, pid=int(child.stdout), started=1)
    elsewhere = replace(gone, host="another")
    foreign = "not-a-tag"
    names = [here.tag(), gone.tag(), elsewhere.tag(), foreign]
    for name in names:
        (tmp_path / name / "inside").mkdir(parents=True)
    remove_scratch(tmp_path / here.tag(), here)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([here.tag(), elsewhere.tag(), foreign])


def test_a_pid_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    here = Owner.here()
    assert here.started is not None
    before = replace(here, started=here.started - 1)
    assert here.ended(before.tag())
    assert not here.ended(here.tag())
