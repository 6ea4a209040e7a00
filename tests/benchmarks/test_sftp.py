"""Downloads over SFTP on loopback, hashed on the way, beside paramiko's own and OpenSSH's, which hash nothing."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from random import Random
from statistics import median

import paramiko
import pytest

from tests.benchmarks.measure import Program, cost
from tests.services import SftpServer, sftp

pytestmark = pytest.mark.services
TIMES = 3
MOST = 200 * 2**20


@pytest.fixture
def server() -> Iterator[SftpServer]:
    with sftp() as started:
        yield started


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    return 50_000_000 if request.config.getoption("--quick") else 500_000_000


def ours(server: SftpServer, root: Path, engine: str) -> Program:
    """The seconds it takes are those it says: importing is no part of a download."""
    told = [str(server.port), str(server.folder / "client"), server.fingerprint(), str(root / "drop")]
    script = str(Path(__file__).with_name("download.py"))
    return Program(engine, [sys.executable, script, *told, str(root / "copies"), engine], root)


def by_sftp(server: SftpServer, root: Path, command: str) -> None:
    known = root / "known_hosts"
    known.write_text(server.known())
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-i", str(server.folder / "client")]
    batch = root / "batch"
    batch.write_text(f"{command}\n")
    port = ["-P", str(server.port), f"{server.user}@127.0.0.1"]
    subprocess.run(["sftp", "-q", *options, "-b", str(batch), *port], check=True, stdout=subprocess.DEVNULL)


def by_paramiko(server: SftpServer, path: Path, copy: Path) -> None:
    transport = paramiko.Transport(("127.0.0.1", server.port))
    transport.connect(username=server.user, pkey=paramiko.Ed25519Key.from_private_key_file(f"{server.folder}/client"))
    client = paramiko.SFTPClient.from_transport(transport)
    assert client is not None
    client.get(str(path), str(copy))
    transport.close()


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def emptied(folder: Path) -> Path:
    """For what is copied: writing over files that are there may cost more than all the rest."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def said(program: Program) -> tuple[float, int]:
    emptied(program.folder / "copies")
    peak = cost(program).peak
    return float((program.folder / "said.txt").read_text()), peak


def shown(name: str, taken: Mapping[str, list[float]], peak: int) -> dict[tuple[str, str], float]:
    print(f"\n{name}; most memory {peak / 2**20:.0f} MiB")
    print("  ".join(f"{one}: {median(seconds):.2f} s" for one, seconds in taken.items()))
    ratios = {
        (one, other): median(b / a for a, b in zip(taken[one], taken[other], strict=True))
        for one in ("paramiko", "openssh")
        for other in taken
        if other not in {"paramiko", "openssh"}
    }
    print("  ".join(f"{one} / {other}: {ratio:.2f}×" for (one, other), ratio in ratios.items()))
    return ratios


@pytest.mark.timeout(1800)
def test_a_large_file_beside_paramikos_own_and_openssh(server: SftpServer, tmp_path: Path, size: int) -> None:
    file = tmp_path / "drop/1/large.csv"
    file.parent.mkdir(parents=True)
    block = Random(1).randbytes(1_000_000)
    with file.open("wb") as large:
        for _ in range(size // len(block)):
            large.write(block)
    taken: dict[str, list[float]] = {"paramiko": [], "openssh": [], "paramiko get()": [], "sftp": []}
    peak = 0
    for _ in range(TIMES):
        for engine in ("paramiko", "openssh"):
            seconds, most = said(ours(server, tmp_path, engine))
            taken[engine].append(seconds)
            peak = max(peak, most)
        copies = emptied(tmp_path / "copies")
        taken["paramiko get()"].append(timed(partial(by_paramiko, server, file, copies / "one")))
        taken["sftp"].append(timed(partial(by_sftp, server, tmp_path, f"get {file} {copies}/another")))
    shown(f"{size / 1e6:.0f} MB", taken, peak)
    said(ours(server, tmp_path, "paramiko"))
    assert (tmp_path / "copies/0").read_bytes() == file.read_bytes()
    assert peak < MOST


@pytest.mark.timeout(1800)
def test_a_thousand_small_files_beside_openssh(server: SftpServer, tmp_path: Path) -> None:
    (tmp_path / "drop/1").mkdir(parents=True)
    for number in range(1000):
        (tmp_path / f"drop/1/{number:04}.csv").write_bytes(Random(number).randbytes(2000))
    taken: dict[str, list[float]] = {"paramiko": [], "openssh": [], "sftp": []}
    peak = 0
    for _ in range(TIMES):
        for engine in ("paramiko", "openssh"):
            seconds, most = said(ours(server, tmp_path, engine))
            taken[engine].append(seconds)
            peak = max(peak, most)
        copies = emptied(tmp_path / "copies")
        taken["sftp"].append(timed(partial(by_sftp, server, tmp_path, f"get {tmp_path}/drop/1/*.csv {copies}/")))
    shown("1,000 files", taken, peak)
    assert len(list((tmp_path / "copies").glob("*.csv"))) == 1000
