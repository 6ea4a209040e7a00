"""What is sent to a lake in parts shares one measure of memory, whatever the parts' sizes and whoever sends them."""

import time
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event, Lock

import pytest

from ingestkit.stores.remote import IN_MEMORY, SENT_AT_ONCE, Turns, sent_side_by_side


@pytest.mark.parametrize(
    ("part", "most"),
    [(IN_MEMORY // 8, 8), (IN_MEMORY // 4, 4), (IN_MEMORY // 4 + 1, 3), (IN_MEMORY, 1), (3 * IN_MEMORY, 1)],
)
def test_so_many_parts_are_in_memory_at_once(part: int, most: int) -> None:
    lock, full, under_way, seen = Lock(), Event(), set[int](), list[int]()

    def send(number: int) -> int:
        with lock:
            under_way.add(number)
            seen.append(len(under_way))
            if len(under_way) == most:
                full.set()
        # All that may come have come; who is one too many has the time to.
        assert full.wait(30)
        time.sleep(0.05)
        with lock:
            under_way.discard(number)
        return number

    parts = 3 * SENT_AT_ONCE
    assert sent_side_by_side(parts * part, part, send, Turns()) == list(range(1, parts + 1))
    assert max(seen) == most


def test_objects_share_it() -> None:
    turns, begun, go = Turns(), Event(), Event()

    def hold(number: int) -> int:
        begun.set()
        assert go.wait(30)
        return number

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(sent_side_by_side, IN_MEMORY, IN_MEMORY, hold, turns)
        assert begun.wait(30)
        second = pool.submit(sent_side_by_side, 1, 1, lambda number: number, turns)
        assert not wait([second], timeout=0.2).done
        go.set()
        assert (first.result(30), second.result(30)) == ([1], [1])
