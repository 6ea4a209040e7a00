"""The page of Vaults: its pipelines load what a Vault holds, by the commands it names."""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.certificates import certified
from tests.docs.pages import below, page, typed_below
from tests.docs.shop import Project
from tests.doubles.direct_data import Chain
from tests.doubles.vault import Held, vault_server

PAGE = page("docs/vault.md")
HEADING = "A Veeva Vault, by Direct Data"


def test_a_vault_is_read_by_the_words_of_the_page(
    shop: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, pipeline = (block for block in below(PAGE, HEADING) if block.language == "yaml")
    connect, secret, new, check, run, plan, new_logs, run_logs, over = typed_below(PAGE, HEADING)
    assert "set VAULT_PASSWORD in the environment" in shop.does(connect)
    monkeypatch.setenv(*shlex.split(secret.removeprefix("export "))[0].split("=", 1))
    shop.does(new, new_logs)
    assert (shop.root / "config/pipelines/vault.yaml").read_text() == pipeline.text
    [refresh] = typed_below(PAGE, "What happens when")
    certificate = certified(tmp_path)
    with vault_server(certificate) as vault:
        path = shop.root / "config/settings.yaml"
        said = yaml.safe_load(path.read_text())
        place = said["profiles"]["local"]["connections"]["my_vault"]
        shown = yaml.safe_load(settings.text)["connections"]["my_vault"]
        assert shown == place | {"client_id": shown["client_id"]}
        place |= {"dns": vault.dns, "username": vault.username, "ca_file": str(certificate.certificate)}
        path.write_text(yaml.safe_dump(said))
        chain = Chain(11, at=datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2))
        start = "2000-01-01T00:00Z"
        for make in (chain.full, chain.next, chain.next):
            name, content = make()
            stop = f"{chain.at:%Y-%m-%dT%H:%MZ}"
            vault.hold(Held(name.removesuffix(".tar.gz"), start, stop, content))
            start = stop
        assert "vault: source" in shop.does(check)
        assert "3 batches done" in shop.does(run)
        assert "nothing new for vault" in shop.does(plan)
        assert "3 batches done" in shop.does(refresh)
        assert "nothing new for vault_logs" in shop.does(run_logs)
    laid_out(shop.root / "accelerator")
    monkeypatch.chdir(shop.root)
    assert "VAULT_PASSWORD" in shop.does(f"{over} --connection another_vault")


def laid_out(folder: Path) -> None:
    folder.mkdir()
    (folder / "vapil_settings.json").write_text('{"vaultDNS": "acme.veevavault.com", "vaultUsername": "me@acme.com"}')
    (folder / "connector_config.json").write_text('{"direct_data": {"extract_type": "incremental"}}')
