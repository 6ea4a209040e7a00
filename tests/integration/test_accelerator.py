"""`new pipeline --from-accelerator`: what Veeva's accelerator was told becomes a connection and a pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.world import World

SECRET = "a password in plain words"
VAPIL: dict[str, Any] = {
    "authenticationType": "BASIC",
    "idpOauthAccessToken": "",
    "vaultUsername": "integration@acme.com",
    "vaultPassword": SECRET,
    "vaultDNS": "acme.veevavault.com",
    "vaultSessionId": "",
    "vaultClientId": "acme-direct-data",
    "logApiErrors": True,
    "httpTimeout": 60,
    "validateSession": True,
}
CONNECTOR: dict[str, Any] = {
    "convert_to_parquet": False,
    "extract_document_content": True,
    "direct_data": {"start_time": "2000-01-01T00:00Z", "stop_time": "2026-01-01T00:00Z", "extract_type": "incremental"},
    "s3": {"bucket_name": "b", "archive_filepath": "direct-data/201287-20250409-0500-F.tar.gz"},
    "redshift": {"host": "h", "password": SECRET},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "accelerator"
    made.mkdir()
    laid(made)
    return made


def laid(folder: Path, vapil: dict[str, Any] | None = None, connector: dict[str, Any] | None = None) -> None:
    (folder / "vapil_settings.json").write_text(json.dumps(VAPIL | (vapil or {})))
    (folder / "connector_config.json").write_text(json.dumps(CONNECTOR | (connector or {})))


def taken(world: World, folder: Path, name: str = "vault") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    said = world.does("new", "pipeline", name, "--from-accelerator", str(folder), "--connection", f"of_{name}")
    text = (world.root / f"config/pipelines/{name}.yaml").read_text()
    settings = (world.root / "config/settings.yaml").read_text()
    assert SECRET not in text + settings + json.dumps(said)
    return said, yaml.safe_load(text), yaml.safe_load(settings)["connections"][f"of_{name}"]


def test_a_login_by_password_and_changes_that_come(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, pipeline, connection = taken(world, folder)
    assert connection == {
        "type": "vault",
        "dns": "acme.veevavault.com",
        "username": "integration@acme.com",
        "password": "${env:VAULT_PASSWORD}",
        "client_id": "acme-direct-data",
        "answer_timeout": "60s",
    }
    assert pipeline == {
        "pipeline": "vault",
        "source": {"type": "vault", "connection": "of_vault"},
        "tables": {"removed": "drop"},
        "gate": {"max_reject_pct": 0},
    }
    assert said["secrets"] == "VAULT_PASSWORD"
    for told in ("direct_data.start_time 2000-01-01T00:00Z", "extract_document_content", "redshift", "s3"):
        assert told in said["left"]
    monkeypatch.setenv("VAULT_PASSWORD", "x")
    world.does("config", "validate")
    assert "is there already" in world.refused(2, "new", "pipeline", "vault", "--from-accelerator", str(folder))


def test_overrides_are_understood(world: World, folder: Path) -> None:
    laid(
        folder,
        connector={"process_id": "VAULT_LOGS", "state_table_name": "etl_state", "extract_type": "log_directdata"},
    )
    said, pipeline, _ = taken(world, folder, "logs")
    assert pipeline["source"] == {"type": "vault", "connection": "of_logs", "extract": "log"}
    assert (pipeline["tables"], pipeline["owner"]) == ({"load": "append"}, "VAULT_LOGS")
    assert "state_table_name etl_state" in said["left"]
    laid(folder, connector={"USE_DYNAMIC_WINDOW": "True", "direct_data": {"extract_type": "full"}})
    _, pipeline, _ = taken(world, folder, "looks")
    assert pipeline["source"] == {"type": "vault", "connection": "of_looks", "look_back": "24h"}


@pytest.mark.parametrize(
    ("said", "login"),
    [
        ({"authenticationType": "SESSION_ID", "vaultSessionId": SECRET}, {"session": "${env:VAULT_SESSION}"}),
        (
            {
                "authenticationType": "OAUTH_ACCESS_TOKEN",
                "idpOauthAccessToken": SECRET,
                "vaultOauthProfileId": "_9ad0",
                "vaultOauthClientId": "me",
            },
            {"oauth": {"profile": "_9ad0", "token": "${env:VAULT_OAUTH_TOKEN}", "client_id": "me"}},
        ),
    ],
)
def test_other_logins(world: World, folder: Path, said: dict[str, Any], login: dict[str, Any]) -> None:
    laid(folder, vapil=said)
    _, _, connection = taken(world, folder)
    assert {name: connection[name] for name in login} == login
    assert "password" not in connection


def test_what_cannot_be_taken_over_leaves_nothing(world: World, folder: Path) -> None:
    before = (world.root / "config/settings.yaml").read_text()
    asked = ("new", "pipeline", "q", "--from-accelerator")
    assert "cannot be read" in world.refused(2, *asked, "/nowhere")
    (folder / "vapil_settings.json").write_text(f'{{"vaultPassword": "{SECRET}"')
    told = world.refused(2, *asked, str(folder))
    assert "is no JSON" in told
    assert SECRET not in told
    laid(folder, vapil={"vaultDNS": ""})
    assert "says no vaultDNS" in world.refused(2, *asked, str(folder))
    laid(folder, vapil={"authenticationType": "MAGIC"})
    assert "'MAGIC' is not known" in world.refused(2, *asked, str(folder))
    laid(folder, connector={"extract_type": "other"})
    assert "is none of full, incremental, log" in world.refused(2, *asked, str(folder))
    assert "by --from-file, of a Vault, by --connection" in world.refused(2, "new", "pipeline", "q")
    assert (world.root / "config/settings.yaml").read_text() == before
    assert not (world.root / "config/pipelines/q.yaml").exists()
