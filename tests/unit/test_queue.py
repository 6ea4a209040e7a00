"""The pending queue: what was acknowledged is never lost, and what is torn or garbled harms nothing else."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestkit.errors import StateError
from ingestkit.states import queue as queue_module
from ingestkit.states.queue import PendingQueue, PendingRecord, framed


@pytest.fixture
def queue(tmp_path: Path) -> PendingQueue:
    return PendingQueue(tmp_path / "state" / "pending_updates.jsonl")


def record(number: int, pipeline: str = "p", model: str = "a") -> PendingRecord:
    return PendingRecord(
        pipeline, model, "stage", ("run", "load", model), token=7, sequence=number, row={"n": number, "ü": [1, None]}
    )


def sequences(queue: PendingQueue) -> list[int]:
    return [one.sequence for one in queue.records()]


def test_a_file_that_is_not_there_is_an_empty_queue(queue: PendingQueue) -> None:
    assert queue.records() == ()
    assert queue.replay("p", ["a"], lambda _: True) == 0
    assert not queue.path.parent.exists()


def test_records_come_back_as_they_were_in_order(queue: PendingQueue) -> None:
    several = [record(1), record(2, pipeline="q"), record(3, model="b")]
    for one in several:
        queue.append(one)
    assert list(queue.records()) == several
    assert queue.records("p") == (several[0], several[2])


def test_a_replay_takes_out_exactly_what_was_applied(queue: PendingQueue) -> None:
    for one in (record(1), record(2, pipeline="q"), record(3, model="b"), record(4), record(5)):
        queue.append(one)
    seen: list[int] = []

    def apply(one: PendingRecord) -> bool:
        seen.append(one.sequence)
        return one.sequence != 4

    assert queue.replay("p", ["a"], apply) == 2
    assert seen == [1, 4, 5]
    assert sequences(queue) == [2, 3, 4]


def test_a_replay_that_fails_keeps_the_rest_and_says_why(queue: PendingQueue) -> None:
    for number in range(4):
        queue.append(record(number))

    def apply(one: PendingRecord) -> bool:
        if one.sequence == 2:
            raise FileNotFoundError("the state is out of reach")
        return True

    with pytest.raises(FileNotFoundError, match="out of reach"):
        queue.replay("p", ["a"], apply)
    assert sequences(queue) == [2, 3]


def test_a_queue_replayed_whole_leaves_no_file(queue: PendingQueue) -> None:
    queue.append(record(1))
    assert queue.replay("p", ["a"], lambda _: True) == 1
    assert list(queue.path.parent.iterdir()) == []


def test_a_replay_with_nothing_to_do_leaves_the_file_untouched(queue: PendingQueue) -> None:
    queue.append(record(1))
    before = queue.path.stat()
    assert queue.replay("q", ["a"], lambda _: True) == 0
    assert queue.replay("p", ["b"], lambda _: True) == 0
    assert queue.path.stat().st_ino == before.st_ino


# --- torn and garbled ------------------------------------------------------------------------------------------------


def test_a_tail_torn_at_any_byte_costs_nothing_but_itself(queue: PendingQueue) -> None:
    whole, torn = framed(record(1)), framed(record(2))
    queue.path.parent.mkdir()
    for length in range(len(torn)):
        queue.path.write_bytes(whole + torn[:length])
        assert sequences(queue) == [1], length
        queue.append(record(3))
        assert sequences(queue) == [1, 3], length
        assert queue.path.read_bytes() == whole + framed(record(3))


@settings(max_examples=60)
@given(tail=st.one_of(st.binary(max_size=300), st.integers(1, 70_000).map(bytes)), first=st.booleans())
def test_whatever_lies_behind_the_last_record_the_next_one_is_kept(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, first: bool
) -> None:
    queue = PendingQueue(tmp_path_factory.mktemp("queue") / "pending.jsonl")
    before = b"" if first else framed(record(1))
    queue.path.write_bytes(before + tail)
    queue.append(record(2))
    assert sequences(queue) == ([2] if first else [1, 2])


def test_a_last_line_with_a_wrong_checksum_is_cut_off(queue: PendingQueue) -> None:
    queue.append(record(1))
    queue.append(record(2))
    content = queue.path.read_bytes()
    queue.path.write_bytes(content.replace(b'"n":2', b'"n":3'))
    queue.append(record(4))
    assert sequences(queue) == [1, 4]


def test_a_garbled_line_in_the_middle_is_kept_aside_and_counted(queue: PendingQueue) -> None:
    for number in (1, 2, 3):
        queue.append(record(number))
    lines = queue.path.read_bytes().splitlines(keepends=True)
    garbled = lines[1].replace(b'"n":2', b'"n":\r5')
    queue.path.write_bytes(lines[0] + garbled + lines[2])
    assert sequences(queue) == [1, 3]
    assert queue.damaged() == 0
    assert queue.replay("p", ["b"], lambda _: True) == 0
    assert queue.bad.read_bytes() == garbled
    assert queue.damaged() == 1
    assert queue.path.read_bytes() == lines[0] + lines[2]


def test_a_queue_of_a_newer_program_is_not_guessed_at(queue: PendingQueue) -> None:
    queue.append(record(1))
    queue.path.write_bytes(queue.path.read_bytes().replace(b'{"v":1,', b'{"v":2,'))
    with pytest.raises(StateError, match="newer ingestkit"):
        queue.records()
    queue.append(record(2))
    assert len(queue.path.read_bytes().splitlines()) == 2


def test_a_value_json_cannot_hold_is_refused_before_the_file_is_touched(queue: PendingQueue) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        queue.append(PendingRecord("p", "a", "stage", (), 1, 1, {"x": float("nan")}))
    assert not queue.path.exists()


# --- failing and racing ----------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_queue_as_it_was(queue: PendingQueue) -> None:
    queue.append(record(1))
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from ingestkit.errors import StateError\n"
        "from ingestkit.states.queue import PendingQueue, PendingRecord\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path = Path(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, resource.RLIM_INFINITY))\n"
        "try: PendingQueue(path).append(PendingRecord('p', 'a', 'stage', (), 1, 2, {}))\n"
        "except StateError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, queue.path], capture_output=True, text=True, check=True)
    assert "cannot be written to: No space left" in done.stdout
    assert queue.path.read_bytes() == framed(record(1))


def test_a_path_that_is_a_folder_is_one_clear_line(queue: PendingQueue) -> None:
    queue.path.mkdir(parents=True)
    with pytest.raises(StateError, match="cannot be written to"):
        queue.append(record(1))


def test_somebody_frozen_in_the_queue_is_not_waited_for_without_end(
    queue: PendingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.append(record(1))
    monkeypatch.setattr(queue_module, "PATIENCE", 0.05)
    handle = os.open(queue.path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(StateError, match="locked by another process") as caught:
        queue.append(record(2))
    os.close(handle)
    assert caught.value.transient


APPENDER = """
import sys
from pathlib import Path
from ingestkit.states.queue import PendingQueue, PendingRecord

queue = PendingQueue(Path(sys.argv[1]))
for number in range(40):
    queue.append(PendingRecord("p", "a", "stage", (sys.argv[2],), 1, number, {"long": "x" * 5000}))
"""


def test_nothing_is_lost_between_processes_that_append_while_others_replay(queue: PendingQueue) -> None:
    command = [sys.executable, "-c", APPENDER, str(queue.path)]
    appending = [subprocess.Popen([*command, name]) for name in ("x", "y")]
    seen: list[tuple[str, int]] = []

    def apply(one: PendingRecord) -> bool:
        seen.append((one.key[0], one.sequence))
        return True

    while any(one.poll() is None for one in appending):
        queue.replay("p", ["a"], apply)
    queue.replay("p", ["a"], apply)
    assert [one.returncode for one in appending] == [0, 0]
    assert sorted(seen) == [(name, number) for name in ("x", "y") for number in range(40)]
    assert [number for name, number in seen if name == "x"] == list(range(40))


def test_a_line_is_json_a_person_can_read(queue: PendingQueue) -> None:
    queue.append(record(1))
    line = json.loads(queue.path.read_text(encoding="utf-8"))
    assert (line["v"], line["body"]["pipeline"], line["body"]["row"]) == (1, "p", {"n": 1, "ü": [1, None]})


def test_a_torn_tail_is_no_garbled_line_and_a_replay_does_not_keep_it(queue: PendingQueue) -> None:
    queue.append(record(1))
    queue.append(record(2, model="b"))
    queue.path.write_bytes(queue.path.read_bytes() + framed(record(3))[:-9])
    assert queue.replay("p", ["a"], lambda _: True) == 1
    assert not queue.bad.exists()
    assert queue.path.read_bytes() == framed(record(2, model="b"))


@pytest.mark.parametrize("rewritten", [True, False])
def test_a_record_is_not_appended_to_a_file_that_a_replay_has_just_replaced(
    queue: PendingQueue, monkeypatch: pytest.MonkeyPatch, rewritten: bool
) -> None:
    queue.append(record(1))
    queue.append(record(2, model="b"))
    lock = queue_module._lock

    def replayed_meanwhile(handle: int, kind: int) -> bool:
        monkeypatch.setattr(queue_module, "_lock", lock)
        for model in ["a"] if rewritten else ["a", "b"]:
            queue.replay("p", [model], lambda _: True)
        return lock(handle, kind)

    monkeypatch.setattr(queue_module, "_lock", replayed_meanwhile)
    queue.append(record(3))
    assert sequences(queue) == ([2, 3] if rewritten else [3])
