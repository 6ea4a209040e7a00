"""What a connection to a lake in a service may say, and what is refused before anything is asked."""

from typing import Any

import pytest
from pydantic import ValidationError

from ingestkit.settings import ADLS_URL, AdlsConnection

URL = "abfss://lake@acme.dfs.core.windows.net"


@pytest.mark.parametrize(
    ("url", "container", "host", "prefix"),
    [
        (URL, "lake", "acme.dfs.core.windows.net", ""),
        (f"{URL}/", "lake", "acme.dfs.core.windows.net", ""),
        (f"{URL}/some/where", "lake", "acme.dfs.core.windows.net", "/some/where"),
        (f"{URL}/some/where/", "lake", "acme.dfs.core.windows.net", "/some/where"),
        ("abfss://a-b1@acme.z12.dfs.storage.azure.net/x", "a-b1", "acme.z12.dfs.storage.azure.net", "/x"),
        ("abfss://lake@acme.dfs.core.chinacloudapi.cn", "lake", "acme.dfs.core.chinacloudapi.cn", ""),
    ],
)
def test_an_url_names_container_account_and_folder(url: str, container: str, host: str, prefix: str) -> None:
    found = ADLS_URL.fullmatch(AdlsConnection(url=url).url)
    assert found
    account = host.partition(".")[0]
    assert found.groupdict() == {"container": container, "host": host, "account": account, "prefix": prefix}


@pytest.mark.parametrize("url", ["${env:LAKE_URL}", "abfss://${env:CONTAINER}@acme.dfs.core.windows.net/x"])
def test_an_url_may_be_a_reference(url: str) -> None:
    assert AdlsConnection(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://acme.dfs.core.windows.net/lake",
        "abfs://lake@acme.dfs.core.windows.net",
        "wasbs://lake@acme.blob.core.windows.net",
        "abfss://lake@acme.blob.core.windows.net",
        "abfss://acme.dfs.core.windows.net/lake",
        "abfss://Lake@acme.dfs.core.windows.net",
        "abfss://la--ke@acme.dfs.core.windows.net",
        "abfss://lake@ac-me.dfs.core.windows.net",
        f"{URL}//x",
        f"{URL}/x//y",
        f"{URL}/../x",
        f"{URL}/x/.",
        f"{URL}/x?sig=y",
        f"{URL}/x y",
    ],
)
def test_an_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="is written as abfss"):
        AdlsConnection(url=url)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"connection_string": "${env:X}", "credential": "managed_identity"}, "stands alone"),
        ({"connection_string": "${env:X}", "endpoint": "https://127.0.0.1:10000/a"}, "stands alone"),
        ({"endpoint": "http://127.0.0.1:10000/devstoreaccount1"}, "endpoint"),
        ({"connection_string": "${env:X}", "client_id": "1"}, "stands alone"),
        ({"credential": "environment", "client_id": "1"}, "client_id is of"),
        ({"credential": "cli"}, "managed_identity"),
        ({"part_size": 1000}, "part_size"),
    ],
)
def test_what_contradicts_itself_is_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        AdlsConnection.model_validate({"url": URL, **said})


def test_a_connection_string_is_not_shown() -> None:
    assert "geheim" not in repr(AdlsConnection(url=URL, connection_string="geheim"))
