"""What the page of alerts shows is taken, and its commands do what it says."""

from collections.abc import Iterator
from typing import get_args

import pytest
import yaml

from ingestkit.settings import IncidentKind
from tests.docs.pages import below, page, table, typed_below
from tests.docs.shop import WRONG, Project
from tests.doubles.receivers import Receiver, receiving

ALERTS = page("docs/alerts.md")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def alerted(shop: Project, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with the settings that the page shows, and of its channels those that are only addresses."""
    shared, mine = [yaml.safe_load(block.text) for block in below(ALERTS, "Alerts") if block.language == "yaml"]
    settings = shop.root / "config/settings.yaml"
    settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | shared))
    pipeline = shop.root / "config/pipelines/shop.yaml"
    pipeline.write_text(yaml.safe_dump(yaml.safe_load(pipeline.read_text()) | mine))
    shop.does("ingestkit config validate")
    for name in ("mail", "topic"):
        del shared["alerts"]["channels"][name]
    mine["alerts"]["channels"] = ["ops", "pager"]
    settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | shared))
    pipeline.write_text(yaml.safe_dump(yaml.safe_load(pipeline.read_text()) | mine))
    for name, value in (("SLACK_URL", receiver.url), ("PAGER_URL", receiver.url), ("PAGER_TOKEN", "token")):
        monkeypatch.setenv(name, value)
    return shop


def test_the_table_names_every_kind() -> None:
    assert [row[0].strip("`") for row in table(ALERTS, "kind")] == list(get_args(IncidentKind))


def test_a_channel_is_tried_by_a_test(alerted: Project, receiver: Receiver) -> None:
    [test] = typed_below(ALERTS, "Trying it")
    said = alerted.does(test)
    assert said.count("sent") == 2
    assert len(receiver.bodies) == 2
    receiver.status = 500
    alerted.refused(test, 7)


def test_what_waits_is_sent_by_looking(alerted: Project, receiver: Receiver) -> None:
    check, listed, *_ = typed_below(ALERTS, "What no run can notice")
    path = alerted.root / "drop/2026-01-05"
    alerted.drop("2026-01-05")
    for file in path.iterdir():
        file.write_text(WRONG)
    receiver.status = 500
    alerted.refused("ingestkit run shop", 6)
    alerted.refused(check, 7)
    receiver.status = 200
    before = len(receiver.bodies)
    alerted.does(check)
    assert len(receiver.bodies) == before + 2
    assert "gate" in alerted.does(listed)


def test_schedulers_are_told_to_look(alerted: Project) -> None:
    alerted.corrects("pipeline: shop", "pipeline: shop\nschedule: {cron: '0 6 * * *'}")
    *_, cron, airflow = typed_below(ALERTS, "What no run can notice")
    assert alerted.does(cron).splitlines()[-2] == "# alerts check: */5 * * * * in UTC"
    assert "ingestkit_alerts.py" in alerted.does(airflow)
    assert "CRON = '*/5 * * * *'" in (alerted.root / "dags/ingestkit_alerts.py").read_text()
