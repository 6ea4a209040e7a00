"""The archives of a Vault, killed while they are fetched and in the third of them: each is done once, and in order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.certificates import certified
from tests.doubles.vault import TIME, FakeVault, Held, vault_server
from tests.faults.processes import Launcher
from tests.faults.test_story import named_steps
from tests.faults.test_tables import ARCHIVES, PIPELINE, Archives, disturbed, undisturbed
from tests.faults.world import RUN, World, differences

pytestmark = pytest.mark.faults

FROM_A_FOLDER = PIPELINE[PIPELINE.index("  type: files") : PIPELINE.index("tables:")]
# They are older than any that a Vault still lists.
FROM_A_VAULT = "  type: vault\n  connection: my_vault\n  kept: 9999d\n"
CONNECTION = """
      my_vault: {{type: vault, dns: '{dns}', username: {username}, password: '${{env:VAULT_PASSWORD}}', ca_file: {ca}}}
"""
SOME = ("vault.part_fetched", "extract.copied", "lake.published", "validate.archive_read", "load.committed")
MANY = sorted(named_steps() - set(SOME))


@dataclass(frozen=True, slots=True)
class Served:
    vault: FakeVault
    archives: Archives


@pytest.fixture(scope="module")
def served(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The archives that are dropped elsewhere, held by a Vault, each in three parts."""
    folder = tmp_path_factory.mktemp("vault")
    certificate = certified(folder)
    with vault_server(certificate) as vault:
        world = World.made(folder / "before", launcher)
        start = "2000-01-01T00:00Z"
        for name, archive in ARCHIVES.items():
            stop = datetime.strptime(f"20260115-{name[:4]}", "%Y%m%d-%H%M").replace(tzinfo=UTC)
            vault.hold(Held(f"100123-20260115-{name}", start, f"{stop:{TIME}}", archive.made(), parts=3))
            start = f"{stop:{TIME}}"
        quiet = f"{stop + timedelta(minutes=15):{TIME}}"
        vault.hold(Held("100123-20260115-0615-N", start, quiet, b"nothing", records=0))
        # What may lie in the lake.
        world.drop({f"{one.name}.tar.gz": one.content for one in vault.held})
        config = world.folder / "config"
        (config / "pipelines/opendata.yaml").write_text(PIPELINE.replace(FROM_A_FOLDER, FROM_A_VAULT))
        said = CONNECTION.format(dns=vault.dns, username=vault.username, ca=certificate.certificate)
        settings = config / "settings.yaml"
        settings.write_text(settings.read_text().replace("    connections:\n", f"    connections:{said}"))
        (world.folder / "config.env").write_text(f"VAULT_PASSWORD='{vault.password}'\n")
        yield Served(vault, undisturbed(world, folder))


@pytest.mark.parametrize("step", SOME)
def test_killed_in_the_third_each_is_done_once(served: Served, step: str, tmp_path: Path) -> None:
    number = served.archives.in_the_third(step)
    assert number is not None
    assert disturbed(served.archives, tmp_path / "world", step, number) == []


@pytest.mark.matrix
@pytest.mark.parametrize("step", MANY)
def test_killed_there_at_any_other_step_it_is_too(served: Served, step: str, tmp_path: Path) -> None:
    number = served.archives.in_the_third(step)
    if number is None:
        pytest.skip(f"the third archive does not come to {step}")
    assert disturbed(served.archives, tmp_path / "world", step, number) == []


@pytest.mark.parametrize("step", ["run.opened", "extract.begun", "extract.recorded", "gate.done"])
def test_killed_in_the_one_without_a_record_it_is_done_as_empty(served: Served, step: str, tmp_path: Path) -> None:
    number = served.archives.within(6, step)
    assert number is not None
    assert disturbed(served.archives, tmp_path / "world", step, number) == []


@pytest.mark.parametrize("part", [1, 2, 3])
def test_killed_between_its_parts_it_fetches_those_that_are_left(served: Served, part: int, tmp_path: Path) -> None:
    world = served.archives.before.copied(tmp_path / "world")
    assert world.call(*RUN, "--jobs", "1", kill=f"vault.part_fetched:{part}").killed
    served.vault.given.clear()
    world.does(*RUN)
    first = [name for name in served.vault.given if name.startswith("100123-20260115-0500-F")]
    assert first == [f"100123-20260115-0500-F.{number:03}" for number in range(part + 1, 4)]
    assert [*differences(served.archives.after, world.seen()), *world.debris()] == []


@pytest.mark.parametrize("step", ["vault.part_fetched", "extract.copied", "run.opened"])
def test_a_full_one_that_came_meanwhile_changes_nothing_of_a_killed_run(
    served: Served, step: str, tmp_path: Path
) -> None:
    archives, vault = served.archives, served.vault
    world = archives.before.copied(tmp_path / "world")
    assert world.call(*RUN, "--jobs", "1", kill=f"{step}:{archives.in_the_third(step)}").killed
    newer = replace(vault.held[0], name="100123-20260115-0600-F", stop="2026-01-15T06:00Z")
    vault.hold(newer)
    try:
        world.does(*RUN)
    finally:
        vault.held.remove(newer)
    assert [*differences(archives.after, world.seen()), *world.debris()] == []
