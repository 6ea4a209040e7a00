"""A state in PostgreSQL over links that break while a run works: cut anywhere, around a COMMIT, slow."""

import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.doubles.proxy import Faults, Proxy, proxied
from tests.faults.conftest import Story
from tests.faults.processes import Ended
from tests.faults.world import RUN, World, alike
from tests.services import PostgresServer

pytestmark = [pytest.mark.faults, pytest.mark.services]

COMMIT = b"COMMIT\0"
# Each of these is written to in a transaction of its own, from the first of a run to its last.
TABLES = ("lease", "file_manifest", "pipeline_run", "run_model", "artifact", "pipeline_stage", "completion")
SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(3, 20))]


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with proxied("127.0.0.1", server.port) as standing:
        yield standing


def run(world: World, proxy: Proxy) -> Ended:
    """A run whose state is behind the proxy."""
    assert world.shared is not None
    url = world.shared.url
    said = urlsplit(url)
    behind = url.replace(f":{said.port}/", f":{proxy.port}/")
    return world.call(*RUN, "--jobs", "1", environ={"INGESTKIT__STATE__URL": behind})


@pytest.fixture(scope="module")
def carried(shared_story: Story, server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many bytes go to and fro in a run that nothing disturbs."""
    with proxied("127.0.0.1", server.port) as proxy:
        world = shared_story.before[0].copied(tmp_path_factory.mktemp("carried") / "world")
        assert run(world, proxy).code == 0
        return proxy.passed


def finished(story: Story, world: World, ended: Ended) -> None:
    """Whatever it came to, it says so in a line, and the next run has nothing left to do or does it."""
    print(f"ended with {ended.code}")
    assert ended.code in (0, 7), ended
    ended.is_clear()
    world.does(*RUN)
    alike(story.after[0], world.seen())
    assert world.debris() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_links_cut_anywhere_cost_no_work(
    shared_story: Story, proxy: Proxy, carried: int, seed: int, tmp_path: Path
) -> None:
    lot = random.Random(seed)
    # Not each run needs as many bytes; what is at its very end the commits below tell of.
    within, several = carried * 9 // 10, lot.choice((1, 1, 2, 5))
    at, delay = sorted(lot.randrange(within) for _ in range(several)), lot.choice((0.0, 0.002))
    print(f"seed {seed}: cut at {at} of {carried} bytes, each block {delay} s late")
    proxy.faults = Faults(cuts_at=at, delay=delay)
    world = shared_story.before[0].copied(tmp_path / "world")
    finished(shared_story, world, run(world, proxy))
    # A run that ended at the first cut does not come to the others.
    assert proxy.cuts >= 1


@pytest.mark.parametrize(
    "table",
    [one if one in {"run_model", "completion"} else pytest.param(one, marks=pytest.mark.matrix) for one in TABLES],
)
@pytest.mark.parametrize("how", ["cut_before", "cut_after"])
def test_a_commit_of_the_state_lost_on_its_way_costs_no_work(
    shared_story: Story, proxy: Proxy, how: str, table: str, tmp_path: Path
) -> None:
    proxy.faults = Faults(once_seen=table.encode(), times=1)
    setattr(proxy.faults, how, COMMIT)
    world = shared_story.before[0].copied(tmp_path / "world")
    ended = run(world, proxy)
    assert proxy.cuts == 1
    finished(shared_story, world, ended)


def test_a_slow_link_is_only_slow(shared_story: Story, proxy: Proxy, tmp_path: Path) -> None:
    proxy.faults = Faults(delay=0.005, rate=2_000_000)
    world = shared_story.before[0].copied(tmp_path / "world")
    ended = run(world, proxy)
    assert ended.code == 0, ended
    finished(shared_story, world, ended)
