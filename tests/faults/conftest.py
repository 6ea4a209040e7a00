"""What the fault tests share: the process that forks the others, and the story as it goes undisturbed."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ingestkit.states import migrate
from tests.doubles.dfs import hierarchical
from tests.faults.lakes import Bucket, Container, Objects
from tests.faults.processes import Launcher
from tests.faults.targets import InSnowflake, Shared
from tests.faults.world import ACTS, World
from tests.object_stores import AzureServer, S3Server, azurite, s3, s3_without_conditions
from tests.services import PostgresServer, SftpServer, postgres, sftp
from tests.snowflake_server import DRIVE, SnowflakeServer, made_by, snowflake_server
from tests.warehouses import warehouse_database


@dataclass(frozen=True, slots=True)
class Story:
    """The undisturbed story: before each act the world, after it what is seen, and the steps each command reached."""

    before: tuple[World, ...]
    after: tuple[dict[str, Any], ...]
    end: World
    steps: tuple[tuple[Counter[str], ...], ...]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a draw, do so many cases of the matrix and the random moments, and leave the rest to `make check`."""
    draw = int(os.environ.get("INGESTKIT_FAULT_DRAW") or 0)
    if not draw:
        return
    matrix = [item for item in items if item.get_closest_marker("matrix")]
    lot = random.Random(os.environ.get("INGESTKIT_FAULT_LOT", "0"))
    drawn = {item.nodeid for item in lot.sample(matrix, min(draw, len(matrix)))}
    chosen = [item for item in items if item.nodeid in drawn or item.get_closest_marker("moments")]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    started = Launcher(tmp_path_factory.mktemp("processes"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> Story:
    folder = tmp_path_factory.mktemp("story")
    return told(folder, World.made(folder / "world", launcher))


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture(autouse=True)
def copies(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has copied of a database goes with it; what stories are told from stays."""
    started: PostgresServer | None = None
    if "server" in request.fixturenames:
        started = request.getfixturevalue("server")
    yield
    if started is not None:
        started.drop_copies()


@pytest.fixture(scope="session")
def shared_story(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher, server: PostgresServer) -> Story:
    """The same with the state in PostgreSQL."""
    folder = tmp_path_factory.mktemp("shared_story")
    server.does("CREATE DATABASE story")
    migrate.upgrade(server.url("story"))
    return told(folder, World.made(folder / "world", launcher, Shared(server, "story")))


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[SftpServer]:
    with sftp() as started:
        yield started


@pytest.fixture(scope="session")
def remote_story(
    tmp_path_factory: pytest.TempPathFactory, launcher: Launcher, server: PostgresServer, sftp_server: SftpServer
) -> Story:
    """The same with state and target in PostgreSQL, and drops on an SFTP server, moved there when they are done."""
    folder = tmp_path_factory.mktemp("remote_story")
    server.does("CREATE DATABASE remote_state")
    migrate.upgrade(server.url("remote_state"))
    target = Shared(server, warehouse_database(server, "remote_target"))
    # Copies of a database have not its own grants, but everybody's.
    return told(folder, World.made(folder / "world", launcher, Shared(server, "remote_state"), target, sftp_server))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with s3() as started:
        yield started


@pytest.fixture(scope="session")
def s3_server_without_conditions() -> Iterator[S3Server]:
    with s3_without_conditions() as started:
        yield started


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    with azurite() as started:
        yield started


@pytest.fixture(scope="session")
def azure_server_with_folders(azure_server: AzureServer) -> Iterator[AzureServer]:
    with hierarchical(azure_server) as started:
        yield started


LAKES = ("s3", "s3_without_conditions", "adls", "adls_rename")


@pytest.fixture(scope="session")
def object_stories(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    launcher: Launcher,
    server: PostgresServer,
) -> Callable[[str], Story]:
    """The same with the lake in a service of objects and the state in PostgreSQL, each told once."""

    @cache
    def story_of(lake: str) -> Story:
        folder = tmp_path_factory.mktemp(f"{lake}_story")
        name = f"story_{lake}"
        server.does(f"CREATE DATABASE {name}")
        migrate.upgrade(server.url(name))
        target = Shared(server, warehouse_database(server, f"target_{lake}"))
        objects = lake_in_a_service(request, lake, folder)
        return told(folder, World.made(folder / "world", launcher, Shared(server, name), target, objects=objects))

    return story_of


@pytest.fixture(params=LAKES)
def object_story(request: pytest.FixtureRequest, object_stories: Callable[[str], Story]) -> Story:
    return object_stories(request.param)


@pytest.fixture(scope="session")
def snowflake() -> Iterator[SnowflakeServer]:
    with snowflake_server() as started:
        # What a process that was killed has begun is aborted once it is in the way for so long; there it takes minutes.
        started.patience(0.5)
        yield started


@pytest.fixture(scope="session")
def snowflake_stories(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    launcher: Launcher,
    server: PostgresServer,
    sftp_server: SftpServer,
    snowflake: SnowflakeServer,
    azure_server: AzureServer,
) -> Callable[[str | None], Story]:
    """The same from an SFTP server through Azure's storage into Snowflake, with the state in PostgreSQL.

    Rows go through the account's own stage, or by the name of one through the lake.
    """
    snowflake.reads(azure=azure_server.connection_string)

    @cache
    def story_by(stage: str | None) -> Story:
        folder = tmp_path_factory.mktemp("snowflake_story")
        name = f"snowflake_{stage or 'own'}"
        server.does(f"CREATE DATABASE {name}")
        migrate.upgrade(server.url(name.lower()))
        target = InSnowflake(snowflake, snowflake.database(), stage=stage)
        objects = lake_in_a_service(request, "adls", folder)
        target.shows(objects)
        with target.opened() as ask:
            made_by(ask, DRIVE, database=target.place, schema="PUBLIC", role=snowflake.role)
        state = Shared(server, name.lower())
        return told(folder, World.made(folder / "world", launcher, state, target, sftp_server, objects))

    return story_by


@pytest.fixture
def snowflake_story(snowflake_stories: Callable[[str | None], Story]) -> Story:
    return snowflake_stories(None)


def lake_in_a_service(request: pytest.FixtureRequest, lake: str, folder: Path) -> Objects:
    if lake.startswith("s3"):
        bucket: S3Server = request.getfixturevalue(lake.replace("s3", "s3_server", 1))
        key = folder / "secret_key"
        key.write_text(bucket.secret_key)
        return Bucket(bucket, bucket.bucket(), key)
    rename = lake == "adls_rename"
    server: AzureServer = request.getfixturevalue("azure_server_with_folders" if rename else "azure_server")
    secret = folder / "connection_string"
    secret.write_text(server.connection_string)
    return Container(server, server.container(), secret, rename)


def told(folder: Path, world: World) -> Story:
    before: list[World] = []
    after: list[dict[str, Any]] = []
    recorded: list[tuple[Counter[str], ...]] = []
    for number, act in enumerate(ACTS):
        world.drop(act.drops)
        before.append(world.copied(folder / f"before-{number}"))
        counts = []
        for place, command in enumerate(act.commands):
            record = folder / f"steps-{number}-{place}"
            record.touch()
            ended = world.call(*command, record=str(record))
            assert ended.code == 0, ended
            counts.append(Counter(record.read_text().split()))
        recorded.append(tuple(counts))
        after.append(world.seen())
        assert world.debris() == []
    if world.shared:
        world.shared.server.copies.clear()
    return Story(tuple(before), tuple(after), world, tuple(recorded))


@pytest.fixture
def world(tmp_path: Path, launcher: Launcher) -> World:
    return World.made(tmp_path / "world", launcher)
