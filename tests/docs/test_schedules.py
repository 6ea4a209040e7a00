"""The page of schedules: its settings are read, and its commands typed."""

import re
from pathlib import Path

from tests.docs.pages import below, page, typed_below
from tests.docs.shop import Project

PAGE = page("docs/schedules.md")


def scheduled(shop: Project) -> None:
    [block] = [one.text for one in below(PAGE, "Schedules") if one.language == "yaml"]
    shop.corrects("pipeline: shop", f"pipeline: shop\n{block}")


def test_cron(shop: Project, tmp_path: Path) -> None:
    scheduled(shop)
    every, one = typed_below(PAGE, "cron")
    told = shop.does(every).splitlines()
    assert told[0] == "# shop: 0 18 * * 0 in America/Los_Angeles"
    assert told[1].endswith(f">>{shop.root}/cron.log 2>&1")
    assert f"cd {shop.root} && " in told[1]
    log = str(tmp_path / "shop.log")
    assert shop.does(one.replace("/var/log/ingestkit/shop.log", log)).splitlines()[1].endswith(f">>{log} 2>&1")


def test_airflow(shop: Project) -> None:
    scheduled(shop)
    [write] = typed_below(PAGE, "Airflow")
    assert "dags/pipeline_shop.py" in shop.does(write)
    text = (shop.root / "dags/pipeline_shop.py").read_text()
    assert re.search(r"^WAIT = 7200.0$", text, re.MULTILINE)
    assert "OWNER = 'data-platform'" in text
    # Written again it takes its own place, and that of nothing else.
    shop.does(write)
    (shop.root / "dags/pipeline_shop.py").write_text("mine\n")
    assert "was not written by" in shop.refused(write, 2)
    assert (shop.root / "dags/pipeline_shop.py").read_text() == "mine\n"
