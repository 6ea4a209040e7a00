"""What holds for all tests: a clean environment, no network but loopback, and services that may be demanded."""

import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

KEPT = ("INGESTKIT_REQUIRE_SERVICES", "INGESTKIT_FAULT_SEEDS", "INGESTKIT_TEST_STATE")
# Where the clouds' own libraries look for credentials and settings.
CLOUDS = ("AWS_", "AZURE_", "IDENTITY_", "MSI_", "IMDS_")
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def only_loopback(event: str, arguments: tuple[object, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = str(arguments[1][0])
    if not host.startswith(LOOPBACK):
        raise AssertionError(f"a test tried to reach {host}; only loopback is allowed")


def pytest_configure() -> None:
    sys.addaudithook(only_loopback)
    # How long an example takes says how busy the machine is.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test whose server is missing is skipped; where services are required, that is a failure."""
    report = yield
    if report.skipped and item.get_closest_marker("services") and os.environ.get("INGESTKIT_REQUIRE_SERVICES"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and INGESTKIT_REQUIRE_SERVICES is set: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests must not reach them."""
    for name in list(os.environ):
        if name.upper().startswith(("INGESTKIT_", *CLOUDS)) and name not in KEPT:
            monkeypatch.delenv(name)
    # Neither files of whoever runs the tests nor the network of the machine may be asked for credentials.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
