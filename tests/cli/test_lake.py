"""`lake lifecycle`, as it is typed: what it shows, asks, writes and refuses."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestkit.cli.main import call
from tests.certificates import certified
from tests.doubles.arm import ACCOUNT, resource_manager
from tests.doubles.httpfaults import ACCESS_DENIED, FaultyServer, faulty
from tests.doubles.identity import identity
from tests.object_stores import S3Server, s3

PIPELINE = r"""
pipeline: shop
source: {type: files, connection: drop, batches: {folders: '(?P<batch>\d{8})'}}
models:
  people: {key: [id], load: replace, columns: {id: {type: integer}}}
"""
THEIRS = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 30}}
RULES = {"keep": {"_runs/": "400d"}, "abort_uploads_after": "3d"}


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with s3() as server:
        yield server


@pytest.fixture
def server(moto: S3Server) -> Iterator[FaultyServer]:
    with faulty(moto.endpoint) as made:
        yield made


@pytest.fixture
def bucket(moto: S3Server) -> str:
    name = moto.bucket()
    moto.client().put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [THEIRS]})  # type: ignore[list-item]
    return name


@pytest.fixture
def project(
    tmp_path: Path, server: FaultyServer, moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The settings, as `settle` writes them."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config/pipelines").mkdir(parents=True)
    (tmp_path / "config/pipelines/shop.yaml").write_text(PIPELINE)
    lake = {"type": "s3", "bucket": bucket, "endpoint_url": server.endpoint, "path_style": True, "lifecycle": RULES}
    drop, warehouse = {"type": "local", "path": "drop"}, {"type": "duckdb", "path": "w.duckdb"}
    said = {"connections": {"drop": drop, "lake": lake, "warehouse": warehouse}}
    settle(said)
    return said


def settle(said: dict[str, Any]) -> None:
    Path("config/settings.yaml").write_text(yaml.safe_dump(said))


def done(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    code = call(["lake", "lifecycle", *arguments, "--output", "json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    found: dict[str, Any] = json.loads(shown.out)
    return found


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    capsys.readouterr()
    assert call(["lake", "lifecycle", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err


def puts(server: FaultyServer) -> int:
    return sum(one.startswith(("PUT", "DELETE", "POST")) for one in server.seen)


pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.usefixtures("project")]


def test_a_plan_shows_what_would_change_and_writes_nothing(
    server: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["lake", "lifecycle", "plan"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["status", "to", "be", "written"] in lines
    assert [line[0] for line in lines[4:]] == ["change", "added", "added", "foreign"]
    told = done(capsys, "plan")
    assert [(one["change"], one["does"], one["prefix"], one["days"]) for one in told["rules"]] == [
        ("added", "expire", "_runs/", 400),
        ("added", "abort_uploads", "", 3),
        ("foreign", None, None, None),
    ]
    assert all("<Rule>" in one["after"] for one in told["rules"])
    assert puts(server) == 0


def test_what_was_applied_is_there_and_applying_it_again_writes_nothing(
    server: FaultyServer, moto: S3Server, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert done(capsys, "apply", "--yes")["status"] == "done"
    assert puts(server) == 1
    there = moto.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [one["ID"].rpartition("-")[2] for one in there] == ["theirs", "runs", "uploads"]
    assert there[0] == THEIRS
    # With nothing to write nothing is asked.
    assert done(capsys, "apply")["status"] == "up to date"
    assert done(capsys, "plan")["status"] == "up to date"
    assert puts(server) == 1


def test_what_is_no_longer_said_is_removed(
    project: dict[str, Any], moto: S3Server, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done(capsys, "apply", "--yes")
    del project["connections"]["lake"]["lifecycle"]
    settle(project)
    assert [one["change"] for one in done(capsys, "apply", "--yes")["rules"]] == ["removed", "removed", "foreign"]
    assert moto.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [THEIRS]


def test_without_a_yes_nothing_is_written(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "--yes" in refused(capsys, 2, "apply")
    assert puts(server) == 0


def test_a_lake_in_a_folder_has_no_rules(project: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    project["connections"]["lake"] = {"type": "local", "path": "lake"}
    settle(project)
    for verb in ("plan", "apply"):
        said = refused(capsys, 3, verb)
        assert "connection lake is a folder of this machine" in said
        assert "ingestkit clean" in said


@pytest.mark.parametrize(
    ("rules", "pipeline", "told"),
    [
        ({"keep": {"raw/shop/": "9000d"}}, {}, "age does not tell what pipeline shop still needs of it"),
        ({"keep": {"valid/shop/": "9000d"}}, {"retention": {"keep": "1d"}}, "valid/shop/ would go after 9000d"),
        ({"keep": {"rejects/shop/": "9000d"}}, {"load": "merge"}, "ingestkit clean removes what is not needed"),
        ({"keep": {"_runs/": "10d"}}, {}, "_runs/ would go after 10d, and pipeline shop keeps it for 90d"),
        ({"keep": {"_runs/shop/": "89d"}}, {"retention": {"keep": "1d"}}, "for 90d (retention.replay_window)"),
        ({"keep": {"_runs/shop/": "99d"}}, {"retention": {"keep": "100d"}}, "for 100d (retention.keep)"),
        (
            {"keep": {"_inflight/": "9d"}},
            {},
            "marks of uploads are needed until lifecycle.abort_uploads_after",
        ),
    ],
)
def test_what_a_pipeline_still_keeps_is_not_given_to_the_service(
    project: dict[str, Any],
    rules: dict[str, Any],
    pipeline: dict[str, Any],
    told: str,
    server: FaultyServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = yaml.safe_load(PIPELINE) | {name: one for name, one in pipeline.items() if name == "retention"}
    said["models"]["people"] |= {name: one for name, one in pipeline.items() if name == "load"}
    Path("config/pipelines/shop.yaml").write_text(yaml.safe_dump(said))
    project["connections"]["lake"]["lifecycle"] = rules
    settle(project)
    assert told in refused(capsys, 3, "apply", "--yes")
    assert server.seen == []


def test_what_no_pipeline_needs_may_go_by_age_and_the_danger_is_told(
    project: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    project["connections"]["lake"]["lifecycle"] = {"keep": {"_runs/": "90d", "raw/gone/": "1d"}}
    settle(project)
    records, gone = done(capsys, "plan")["warnings"]
    assert records == "of runs whose records are gone from _runs/ ingestkit state adopt knows nothing"
    assert gone.startswith("no pipeline of this project has raw/gone/")
    call(["lake", "lifecycle", "plan"])
    assert "warning: of runs whose records are gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"keep": {"raw": "90d"}}, "raw/shop/"),
        ({"keep": {"raw/": "90d"}}, "raw/shop/"),
        ({"keep": {"_layouts/": "90d"}}, "raw/shop/"),
        ({"keep": {"_runs/": "36h"}}, "whole days"),
        ({"abort_uploads_after": "0d"}, "whole days"),
        ({"abort_uploads": "3d"}, "abort_uploads_after"),
    ],
)
def test_rules_that_mean_nothing_are_refused(
    project: dict[str, Any], rules: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project["connections"]["lake"]["lifecycle"] = rules
    settle(project)
    assert told in refused(capsys, 3, "plan")


def test_a_lake_in_azure_has_its_rules_with_the_account(
    project: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = certified(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(signed.certificate))
    keep = {"_runs/": "400d", "_inflight/": "6d"}
    said = {"type": "adls", "url": "abfss://lake@acme.dfs.core.windows.net", "lifecycle": {"keep": keep}}
    project["connections"]["lake"] = said
    settle(project)
    assert "account_id" in refused(capsys, 3, "plan")
    with identity(signed) as mine, resource_manager(signed) as manager:
        for name, value in mine.environment.items():
            monkeypatch.setenv(name, value)
        said |= {"credential": "managed_identity", "account_id": ACCOUNT, "management_endpoint": manager.endpoint}
        settle(project)
        assert "_inflight/ would go after 6d" in refused(capsys, 3, "apply", "--yes")
        keep["_inflight/"] = "7d"
        settle(project)
        assert done(capsys, "apply", "--yes")["status"] == "done"
        assert done(capsys, "apply")["status"] == "up to date"
        [policy] = manager.written
        assert [one["name"].rpartition("-")[2] for one in policy["rules"]] == ["inflight", "runs"]
        said["credential"] = "workload_identity"
        settle(project)
        assert "no credentials" in refused(capsys, 7, "plan")


def test_one_of_several_lakes_must_be_named(project: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    project["connections"]["other"] = {"type": "local", "path": "lake"}
    settle(project)
    Path("config/pipelines/till.yaml").write_text(PIPELINE.replace("shop", "till") + "lake: other\n")
    assert "name a lake: the pipelines have lake, other" in refused(capsys, 2, "plan")
    assert done(capsys, "plan", "lake")["status"] == "to be written"
    assert "folder of this machine" in refused(capsys, 3, "plan", "other")
    assert "did you mean 'lake'?" in refused(capsys, 3, "plan", "lage")
    assert "connection warehouse is no lake: its type is duckdb" in refused(capsys, 3, "plan", "warehouse")


def test_who_may_not_is_told_what_to_grant(server: FaultyServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.breaks(ACCESS_DENIED, "PUT", times=None)
    said = refused(capsys, 7, "apply", "--yes")
    assert "docs/lakes.md" in said
