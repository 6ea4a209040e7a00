"""A line put into a settings file: everything else stays byte for byte, or nothing is done."""

from pathlib import Path

import pytest

from ingestkit import connecting, project
from ingestkit.cli.main import call
from ingestkit.errors import UsageError

HERE = {"type": "local", "path": "here"}
LINE = "new: {type: local, path: here}"


def put(folder: Path, text: str, name: str = "settings.yaml") -> bytes:
    path = folder / name
    path.write_bytes(text.encode())
    connecting.connect(path, "local", "new", HERE)
    return path.read_bytes()


COMMENTED = """\
# Ours.
connections:
  # Where it comes from.
  drop: {type: local, path: drop}  # all
HERE

# Then.
jobs: 1
"""
IN_A_PROFILE = """\
connections:
  lake: {type: local, path: lake}
profiles:
  local:
    connections:
      drop: {type: local, path: drop}
HERE
  prod:
    connections:
      drop: {type: local, path: /d}
"""
IN_BLOCKS = """\
connections:
    drop:
        type: local
        path: drop
HERE
"""
OF_MANY_LINES = """\
connections:
  drop:
    type: local
    path: |-
      drop
HERE
jobs: 1
"""


@pytest.mark.parametrize("text", [COMMENTED, IN_A_PROFILE, IN_BLOCKS, OF_MANY_LINES])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["bare", "marked"])
def test_one_line_is_put_behind_the_last_connection_and_nothing_else_changes(
    tmp_path: Path, text: str, end: str, mark: str
) -> None:
    ours = mark + text.replace("\n", end)
    before = ours.replace(f"HERE{end}", "")
    above = before[: ours.index("HERE")].splitlines()
    key = next(line for line in reversed(above) if line.lstrip().startswith("drop:"))
    indent = key[: len(key) - len(key.lstrip())]
    assert put(tmp_path, before) == ours.replace("HERE", f"{indent}{LINE}").encode()


def test_a_last_line_without_an_end_gets_one(tmp_path: Path) -> None:
    before = "connections:\n  drop: {type: local, path: drop}"
    assert put(tmp_path, before) == f"{before}\n  {LINE}\n".encode()


SHARED = """\
profiles:
  local:
    connections: &all
      drop: {type: local, path: drop}
  prod:
    connections: *all
"""


@pytest.mark.parametrize(
    "text",
    [
        "connections: {drop: {type: local, path: drop}}\n",
        "connections: {}\n",
        "connections:\njobs: 1\n",
        "jobs: 1\n",
        SHARED,
    ],
)
def test_where_a_line_would_not_do_the_file_stays_and_a_person_is_told_what_to_write(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        put(tmp_path, text)
    assert LINE in str(refused.value.hint)
    assert (tmp_path / "settings.yaml").read_text() == text


def test_json_is_left_to_people(tmp_path: Path) -> None:
    text = '{"connections":\n  {"drop": {"type": "local", "path": "drop"}}}'
    with pytest.raises(UsageError):
        put(tmp_path, text, "settings.json")
    assert (tmp_path / "settings.json").read_text() == text


def test_a_file_keeps_its_rights_and_a_link_its_target(tmp_path: Path) -> None:
    real = tmp_path / "shared.yaml"
    real.write_text("connections:\n  drop: {type: local, path: drop}\n")
    real.chmod(0o640)
    (tmp_path / "settings.yaml").symlink_to(real)
    connecting.connect(tmp_path / "settings.yaml", "local", "new", HERE)
    assert (tmp_path / "settings.yaml").is_symlink()
    assert LINE in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("url", "path"),
    [("/srv/drop", "/srv/drop"), ("drop", "drop"), ("file:///srv/a%20b", "/srv/a b"), ("${env:DROP}", "${env:DROP}")],
)
def test_a_folder_is_meant_however_it_is_written(url: str, path: str) -> None:
    assert connecting.connection_of("files", url) == {"type": "local", "path": path}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sftp://me@host/srv/a%20b", {"host": "host", "user": "me", "path": "/srv/a b"}),
        ("sftp://me@host:2222/~/drop", {"host": "host", "port": 2222, "user": "me", "path": "drop"}),
        ("sftp://me@host", {"host": "host", "user": "me", "path": "."}),
    ],
)
def test_a_server_is_meant_with_who_logs_in(url: str, said: dict[str, object]) -> None:
    made = connecting.connection_of("files", url)
    assert made == {"type": "sftp", **said, "key": "~/.ssh/id_ed25519"}


@pytest.mark.parametrize(
    ("kind", "url", "said"),
    [
        ("file", "/srv/drop", "there is no source of type 'file'; did you mean 'files'?"),
        (
            "files",
            "ftp://host/drop",
            "no source of type files reads from ftp://; known are folders and file://, sftp://",
        ),
        ("files", "sftp://host/drop", "does not say who logs in where"),
        ("files", "sftp://me:secret@host/drop", "a password does not belong into an address"),
        ("files", "sftp://me@host:99999/drop", "says no port"),
        ("vault", "acme.veevavault.com", "no source of type vault reads from a folder; known are https://"),
        ("vault", "https://acme.veevavault.com", "does not say who logs in where"),
        ("vault", "https://me@acme.com@acme.veevavault.com/ui", "does not say who logs in where"),
        ("vault", "https://me:secret@acme.veevavault.com/ui", "a password does not belong into an address"),
        ("files", "file://host/drop", "is of another machine"),
        ("files", " ", "--url says no place"),
    ],
)
def test_what_is_no_source_is_told(kind: str, url: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        connecting.connection_of(kind, url)
    assert said in refused.value.message
    assert "secret" not in refused.value.message


def test_a_vault_is_meant_with_who_logs_in() -> None:
    assert connecting.connection_of("vault", "https://me@acme.com@acme.veevavault.com:8443/") == {
        "type": "vault",
        "dns": "acme.veevavault.com:8443",
        "username": "me@acme.com",
        "password": "${env:VAULT_PASSWORD}",
    }


def test_a_new_source_can_be_used_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init", str(tmp_path), "--empty"]) == 0
    (tmp_path / "crm").mkdir()
    (tmp_path / "people.csv").write_text("id,name\n1,Ana\n2,Bo\n")
    here = ["--project", str(tmp_path)]
    assert call([*here, "new", "source", "crm", "--url", "crm"]) == 0
    assert "ingestkit new pipeline PIPELINE --from-file SAMPLE --connection crm" in capsys.readouterr().out
    sample = ["--from-file", str(tmp_path / "people.csv"), "--connection", "crm"]
    assert call([*here, "new", "pipeline", "people", *sample]) == 0
    assert project.load(tmp_path, environ={}).pipeline("people").settings.source.connection == "crm"
    before = (tmp_path / "config/settings.yaml").read_text()
    assert call([*here, "new", "source", "crm", "--url", "elsewhere"]) == 2
    assert "connection crm is there already" in capsys.readouterr().err
    assert call([*here, "new", "source", "C R M", "--url", "elsewhere"]) == 2
    assert (tmp_path / "config/settings.yaml").read_text() == before


def test_only_a_vault_needs_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init", str(tmp_path), "--empty"]) == 0
    here = ["--project", str(tmp_path), "new", "pipeline", "people"]
    for more in (["--connection", "lake"], [], ["--logs", "--from-file", "a.csv"], ["--logs", "--connection", "lake"]):
        assert call([*here, *more]) == 2
        assert "a pipeline is proposed from samples" in capsys.readouterr().err
    assert not (tmp_path / "config/pipelines/people.yaml").exists()
