"""How much is measured: `--quick` takes a tenth of the rows."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="measure with 400,000 rows, not with 4 million")


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> int:
    return 400_000 if request.config.getoption("--quick") else 4_000_000
