"""Our lifecycle rules among those of others, in an account of Azure storage that takes its policy only as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.pipeline.policies import RetryPolicy
from pydantic import ValidationError

from ingestkit import lifecycle
from ingestkit.errors import ConfigError, LakeError
from ingestkit.settings import AdlsConnection, Lifecycle
from ingestkit.stores.adls_lifecycle import AdlsLifecycle, opened
from tests.certificates import certified
from tests.contracts.test_s3_lifecycle import Still, project
from tests.doubles.arm import ACCOUNT, ResourceManager, resource_manager
from tests.doubles.identity import identity

WANTED = {"keep": {"_runs/": "400d"}, "noncurrent_versions": "30d"}
SHOP = project("shop")
URL = "abfss://lake@acme.dfs.core.windows.net/ingestkit"


def rule(name: str, *prefixes: str, days: int = 30, **more: Any) -> dict[str, Any]:
    """A rule of others, with a word that nobody knows."""
    filters = {"blobTypes": ["blockBlob"]} | ({"prefixMatch": list(prefixes)} if prefixes else {}) | more
    actions = {"baseBlob": {"delete": {"daysAfterModificationGreaterThan": days}, "unheardOf": {"days": 1.5}}}
    definition = {"filters": filters, "actions": actions}
    return {"enabled": True, "name": name, "type": "Lifecycle", "definition": definition}


THEIRS = [rule("cold", "x/", days=7), rule("ingestkit-00000000-runs", "other/_runs/", days=1)]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResourceManager]:
    """With rules of others, and this machine with an identity."""
    signed = certified(tmp_path)
    with identity(signed) as mine, resource_manager(signed) as made:
        for name, value in mine.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(signed.certificate))
        made.policy = {"rules": THEIRS}
        yield made


def connection(manager: ResourceManager, **more: Any) -> AdlsConnection:
    said = {"url": URL, "credential": "managed_identity", "account_id": ACCOUNT}
    return AdlsConnection.model_validate(said | {"management_endpoint": manager.endpoint} | more)


def service(manager: ResourceManager, **more: Any) -> AdlsLifecycle:
    return opened(connection=connection(manager, **more), name="lake")


def planned(manager: ResourceManager, wanted: dict[str, Any] | None = None) -> lifecycle.Plan:
    return lifecycle.plan(service(manager), Lifecycle.model_validate(WANTED if wanted is None else wanted), SHOP)


def applied(manager: ResourceManager, wanted: dict[str, Any] | None = None) -> None:
    plan = planned(manager, wanted)
    if plan.to_write:
        lifecycle.apply(service(manager), plan, Still())


def test_ours_are_written_beside_those_of_others_which_stay(manager: ResourceManager) -> None:
    applied(manager)
    [written] = manager.written
    assert written["rules"][:2] == THEIRS
    assert [
        (one["name"].rpartition("-")[2], one["definition"]["filters"]["prefixMatch"], one["definition"]["actions"])
        for one in written["rules"][2:]
    ] == [
        ("runs", ["lake/ingestkit/_runs/"], {"baseBlob": {"delete": {"daysAfterModificationGreaterThan": 400}}}),
        ("noncurrent", ["lake/ingestkit/"], {"version": {"delete": {"daysAfterCreationGreaterThan": 30}}}),
    ]


def test_what_is_there_already_is_not_written_again(manager: ResourceManager) -> None:
    applied(manager)
    applied(manager)
    assert len(manager.written) == 1


def test_what_is_no_longer_said_is_removed_and_the_last_rule_with_the_policy(manager: ResourceManager) -> None:
    applied(manager)
    applied(manager, {})
    assert manager.policy == {"rules": THEIRS}
    manager.policy = None
    applied(manager)
    applied(manager, {})
    assert manager.policy is None


def test_who_writes_between_plan_and_apply_is_not_overwritten(manager: ResourceManager) -> None:
    plan = planned(manager)
    manager.policy = {"rules": THEIRS[:1]}
    with pytest.raises(LakeError, match=r"somebody changed the lifecycle rules of acme\.dfs\.core\.windows\.net"):
        lifecycle.apply(service(manager), plan, Still())
    assert manager.written == []


def test_who_writes_right_behind_us_is_told_of(manager: ResourceManager) -> None:
    def theirs() -> None:
        manager.policy = {"rules": THEIRS}

    manager.afterwards = theirs
    with pytest.raises(LakeError, match="somebody else wrote at the same time"):
        applied(manager)


def test_rules_of_others_that_remove_what_is_needed_are_warned_of(manager: ResourceManager) -> None:
    off = rule("off", "lake/") | {"enabled": False}
    tagged = rule("tagged", blobIndexMatch=[{"name": "a", "op": "==", "value": "b"}])
    below = "lake/ingestkit"
    some = [
        rule("all"),
        rule("raw", "x/", f"{below}/raw"),
        # The first that lies in the lake takes nothing that is needed.
        rule("second", f"{below}/_layouts/", f"{below}/valid/shop/"),
        rule("records", f"{below}/_runs/", days=89),
        rule("enough", f"{below}/_runs/", days=90),
    ]
    manager.policy = {"rules": [*some, off, tagged, rule("elsewhere", "lake/other/")]}
    told = planned(manager, {}).warnings
    assert [one.split()[1] for one in told] == ["all", "raw", "second", "records"]


def test_rules_of_others_that_archive_what_is_needed_are_warned_of(manager: ResourceManager) -> None:
    def moving(name: str, tier: str, *prefixes: str) -> dict[str, Any]:
        actions = {"baseBlob": {tier: {"daysAfterCreationGreaterThan": 30}}}
        filters = {"blobTypes": ["blockBlob"], "prefixMatch": list(prefixes)}
        definition = {"filters": filters, "actions": actions}
        return {"enabled": True, "name": name, "type": "Lifecycle", "definition": definition}

    cold = [moving("cool", "tierToCool", "lake/"), moving("cold", "tierToCold", "lake/")]
    manager.policy = {"rules": [*cold, moving("frozen", "tierToArchive", "x/", "lake/ingestkit/rejects/")]}
    [told] = planned(manager, {}).warnings
    assert told.startswith("rule frozen of others archives objects of rejects/shop/ after 30d")


def test_names_of_rules_have_no_underscore(manager: ResourceManager) -> None:
    applied(manager, {"keep": {"_runs/a_b/": "400d", "_runs/a_/": "400d", "_runs/a/": "400d"}})
    assert len(manager.written[0]["rules"]) == len(THEIRS) + 3


def test_who_may_not_is_told_what_to_grant(manager: ResourceManager) -> None:
    manager.refuses = "AuthorizationFailed"
    with pytest.raises(LakeError, match=r"does not allow .* AuthorizationFailed") as refused:
        planned(manager)
    assert "Storage Account Contributor" in str(refused.value.hint)


def error(code: str) -> str:
    return json.dumps({"error": {"code": code, "message": "sorry"}})


@pytest.mark.parametrize(
    ("status", "text", "told", "hint"),
    [
        (500, error("InternalError"), "failed while .*: InternalError, sorry", "run again"),
        (409, error("StorageAccountOperationInProgress"), "failed while .*InProgress", "run again"),
        (400, error("InvalidRequest"), "failed while .*InvalidRequest", "its connection"),
        (401, error("ExpiredAuthenticationToken"), "have expired", "renew them"),
        (200, "<html>a proxy</html>", "no lifecycle rules", "management_endpoint"),
        (200, "null", "no lifecycle rules", "management_endpoint"),
        (200, '{"properties": null}', "no lifecycle rules", "management_endpoint"),
        (200, '{"properties": {"policy": {"rules": ["all"]}}}', "no lifecycle rules", "management_endpoint"),
    ],
)
def test_whatever_it_answers_there_is_something_to_do(
    manager: ResourceManager, monkeypatch: pytest.MonkeyPatch, status: int, text: str, told: str, hint: str
) -> None:
    monkeypatch.setattr(RetryPolicy, "sleep", lambda *_, **__: None)
    manager.says = (status, text)
    with pytest.raises(LakeError, match=told) as refused:
        planned(manager)
    assert hint in str(refused.value.hint)


def test_a_machine_without_an_identity_is_told(manager: ResourceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    with pytest.raises(LakeError, match="no credentials"):
        planned(manager)


@pytest.mark.parametrize("credential", ["workload_identity", "environment", "default"])
def test_an_identity_that_is_not_set_up_is_told(
    manager: ResourceManager, monkeypatch: pytest.MonkeyPatch, credential: str
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LakeError, match="no credentials") as refused:
        service(manager, credential=credential).read()
    assert "az login" in str(refused.value.hint)


def test_an_account_of_another_group_is_said(manager: ResourceManager) -> None:
    with pytest.raises(LakeError, match=r"there is no such account .* ResourceNotFound"):
        service(manager, account_id=ACCOUNT.replace("/g/", "/other/")).read()


def test_without_the_accounts_id_there_is_nobody_to_ask(manager: ResourceManager) -> None:
    for wrong in (None, ACCOUNT.replace("acme", "other")):
        with pytest.raises(ConfigError, match="does not say where the rules of account acme are kept"):
            service(manager, account_id=wrong)
    with pytest.raises(ValidationError, match="is a resource id"):
        connection(manager, account_id="acme")


def test_uploads_need_no_rule(manager: ResourceManager) -> None:
    with pytest.raises(ValidationError, match="discards after a week"):
        connection(manager, lifecycle={"abort_uploads_after": "3d"})
