"""What the page of metrics says is what meters are told."""

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.docs.pages import below, page, table, typed_below
from tests.docs.shop import WRONG, Project
from tests.doubles import promfile, statsd
from tests.doubles.otlp import Collector, collecting

METRICS = page("docs/metrics.md")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture
def server() -> Iterator[statsd.Statsd]:
    with statsd.listening() as started:
        yield started


@pytest.fixture
def metered(shop: Project, collector: Collector, server: statsd.Statsd, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with the meters that the page shows, at other addresses."""
    [text] = [block.text for block in below(METRICS, "Metrics and traces") if block.language == "yaml"]
    told = yaml.safe_load(text)["metrics"]
    assert told["statsd"]["port"] == 8125
    told["otlp"]["endpoint"], told["statsd"]["port"] = collector.url, server.port
    told["textfile"]["folder"] = "prom"
    path = shop.root / "config/settings.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"metrics": told}))
    monkeypatch.setenv("OTLP_KEY", "key")
    return shop


def written(shop: Project) -> dict[str, dict[promfile.Labels, float]]:
    return promfile.read((shop.root / "prom/ingestkit_shop.prom").read_text())


def test_the_table_is_what_is_told(metered: Project, collector: Collector) -> None:
    metered.drop("2026-01-05")
    metered.does("ingestkit check", "ingestkit run shop")
    shown = [[cell.strip("`") for cell in row[:2]] for row in table(METRICS, "figure")]
    assert {name for name, _ in shown} == set(collector.points)
    assert {name for _, name in shown} == set(written(metered))
    tags = {key for series in collector.points.values() for known in series for key, _ in known}
    assert tags == {"pipeline", "model", "stage", "status", "environment"}
    for row in table(METRICS, "figure"):
        if stage := re.search(r"; of (\w+)$", row[2]):
            series = collector.points[row[0].strip("`")]
            assert {dict(known)["stage"] for known in series} == {stage[1]}


def test_the_rules_shown_name_what_there_is(metered: Project) -> None:
    metered.drop("2026-01-05")
    metered.does("ingestkit run shop")
    [rules] = [block.text for block in below(METRICS, "Prometheus' textfile") if block.language == "promql"]
    names = set(re.findall(r"ingestkit_\w+", rules))
    assert len(names) == 5
    assert names <= set(written(metered))


def test_names_without_tags_are_as_shown(
    metered: Project, server: statsd.Statsd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGESTKIT__METRICS__STATSD__TAGS", "names")
    path = metered.root / "config/settings.yaml"
    said = yaml.safe_load(path.read_text())
    del said["metrics"]["tags"]
    path.write_text(yaml.safe_dump(said))
    metered.drop("2026-01-05")
    metered.does("ingestkit run shop")
    [name] = re.findall(r"`(ingestkit\.rows\.read\.[\w.]+)`", METRICS)
    assert (name, 2, "c", "") in server.heard()


def test_the_callers_trace_is_taken_from_the_environment(metered: Project, collector: Collector) -> None:
    metered.drop("2026-01-05")
    [line] = typed_below(METRICS, "Traces")
    told = metered.does(line)
    assert "4bf92f3577b34da6a3ce929d0e0e4736" in told
    [run] = [one for one in collector.spans if one.name == "run"]
    assert (run.trace_id, run.parent_id) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    files = [one for one in collector.spans if one.name.endswith(" file")]
    assert {(one.name, one.tags["file"]) for one in files} == {
        ("extract file", "2026-01-05/customers.csv"),
        ("validate file", "2026-01-05/customers.csv"),
    }


def test_a_collector_that_refuses_is_a_warning(metered: Project, collector: Collector) -> None:
    collector.status = 503
    metered.drop("2026-01-05")
    [shown] = [block.text for block in below(METRICS, "When somebody does not listen")]
    assert shown.strip().removeprefix("warning: ") in metered.does("ingestkit run shop")
    # And what is rejected is no part of it.
    metered.put("2026-01-12", WRONG)
    assert "2025-02-30" not in metered.types("ingestkit run shop")[1]
