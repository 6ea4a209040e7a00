"""What a folder of Veeva's accelerator says, as a connection and a pipeline; its secrets become references."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ingestkit.errors import UsageError

LOGIN, JOB = "vapil_settings.json", "connector_config.json"
LOOK_BACK = "24h"
READ = {"direct_data", "process_id", "state_table_name", "extract_type", "USE_DYNAMIC_WINDOW", "convert_to_parquet"}
NOT_LOADED = {"extract_document_content", "retrieve_document_text"}


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken over, and what is to be done by a person."""

    connection: Mapping[str, Any]
    pipeline: Mapping[str, Any]
    secrets: tuple[str, ...]
    """The variables that references name."""
    left: tuple[str, ...]

    def text(self, name: str) -> str:
        body = yaml.safe_dump(dict(self.pipeline), sort_keys=False, allow_unicode=True, width=120)
        return f"# config/pipelines/{name}.yaml, as {JOB} said it\npipeline: {name}\n{body}"


def taken(folder: Path, connection: str) -> Taken:
    """What both files of the folder say. Values of secrets are read by nobody."""
    login, job = _read(folder / LOGIN), _read(folder / JOB)
    made, secrets, left = _login(login)
    said = job.get("direct_data") or {}
    kind = str(job.get("extract_type") or said.get("extract_type") or "incremental").removesuffix("_directdata")
    if kind not in ("full", "incremental", "log"):
        raise UsageError(f"{folder / JOB}: extract_type {kind!r} is none of full, incremental, log")
    source: dict[str, Any] = {"type": "vault", "connection": connection}
    if kind == "log":
        source["extract"] = "log"
    if _is_true(job.get("USE_DYNAMIC_WINDOW")):
        source["look_back"] = LOOK_BACK
    elif kind == "incremental" and said.get("start_time"):
        left.append(
            f"direct_data.start_time {said['start_time']}: say it as source.start, if no full archive is wanted"
        )
    pipeline: dict[str, Any] = {
        "source": source,
        "tables": {"load": "append"} if kind == "log" else {"removed": "drop"},
    }
    pipeline["gate"] = {"max_reject_pct": 0}
    if job.get("process_id"):
        pipeline["owner"] = str(job["process_id"])
    if job.get("state_table_name"):
        left.append(
            f"state_table_name {job['state_table_name']}: the state has tables of its own, see `state` in the settings"
        )
    left += [
        f"{one}: files and texts of documents are not loaded" for one in sorted(NOT_LOADED) if _is_true(job.get(one))
    ]
    left += [
        f"{one}: say it as connections.warehouse or connections.lake in config/settings.yaml"
        for one in sorted(set(job) - READ - NOT_LOADED)
        if isinstance(job[one], dict)
    ]
    return Taken(made, pipeline, secrets, tuple(left))


def _login(said: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
    kind = str(said.get("authenticationType") or "BASIC").upper()
    place = str(said.get("vaultDNS") or "").removeprefix("https://").rstrip("/")
    if not place:
        raise UsageError(
            f"{LOGIN} says no vaultDNS", hint="put it there, or write the connection by hand: docs/vault.md"
        )
    made: dict[str, Any] = {"type": "vault", "dns": place}
    left: list[str] = []
    match kind:
        case "BASIC":
            variable = "VAULT_PASSWORD"
            made |= {"username": str(said.get("vaultUsername") or ""), "password": _reference(variable)}
        case "SESSION_ID":
            variable = "VAULT_SESSION"
            made |= {"session": _reference(variable)}
        case "OAUTH_ACCESS_TOKEN" | "OAUTH_DISCOVERY":
            variable = "VAULT_OAUTH_TOKEN"
            login: dict[str, Any] = {
                "profile": str(said.get("vaultOauthProfileId") or ""),
                "token": _reference(variable),
            }
            if said.get("vaultOauthClientId"):
                login["client_id"] = str(said["vaultOauthClientId"])
            made |= {"oauth": login}
            if kind == "OAUTH_DISCOVERY":
                left.append("idpUsername, idpPassword: a token is to be had from the identity provider beforehand")
        case _:
            raise UsageError(f"{LOGIN}: authenticationType {kind!r} is not known", hint="see docs/vault.md for what is")
    if said.get("vaultClientId"):
        made["client_id"] = str(said["vaultClientId"])
    patience = said.get("httpTimeout")
    if isinstance(patience, int | float) and patience > 0:
        made["answer_timeout"] = f"{patience:g}s"
    return made, (variable,), left


def _reference(name: str) -> str:
    return f"${{env:{name}}}"


def _is_true(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1", "yes", "y")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=f"ls -l {path.parent}") from error
    except ValueError as error:
        # Its text would hold what stands there, and that may be a secret.
        raise UsageError(f"{path} is no JSON", hint=f"python -m json.tool {path}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no object of JSON", hint=f"python -m json.tool {path}")
    return found
