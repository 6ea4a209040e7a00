"""The reference's section on windows: its pipeline runs, and prints what is shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ingestkit.cli.main import call
from ingestkit.pipeline import SystemClock
from tests.docs.pages import below, blocks, page
from tests.docs.test_readme import without_times

REFERENCE = page("docs/reference.md")
SALES = {
    "2026-03-28": "id,sold_at\n1,2026-03-28 09:00:00\n2,2026-03-28 17:30:00\n",
    "2026-03-29": "id,sold_at\n3,2026-03-29 12:00:00\n",
}


def test_the_windows_of_the_page_are_taken_as_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, shown = below(REFERENCE, "Time windows")
    [settings] = [one for one in blocks(REFERENCE) if one.text.startswith("# config/settings.yaml\nprofiles:")]
    for one in (pipeline, settings):
        path = tmp_path / one.text.split("\n", 1)[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.text)
    for day, text in SALES.items():
        folder = tmp_path / "drop" / "tills" / day
        folder.mkdir(parents=True)
        (folder / "sale.csv").write_text(text)
    ahead = datetime(2026, 3, 30, 8, tzinfo=UTC) - datetime.now(UTC)
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + ahead)
    monkeypatch.chdir(tmp_path)
    command, expected = shown.text.split("\n", 1)
    assert call(command.split()[2:]) == 0
    assert without_times(capsys.readouterr().out) == without_times(expected)
    key = yaml.safe_load(pipeline.text)["source"]["batches"]["start"].isoformat()
    assert call(["backfill", "tills", "--batch", key]) == 0
