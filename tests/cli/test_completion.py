"""What a shell offers behind a word that is being typed, as bash and zsh ask for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from ingestkit.cli.main import main; main()"]
DONE = "opendata.20260118_180000.1"


def asked(folder: Path, **environ: str) -> str:
    done = subprocess.run(
        COMMAND, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout


def bash(folder: Path, line: str) -> list[str]:
    """What bash is offered for the last word of the line; one that is begun anew is empty."""
    place = str(len(line.split(" ")) - 1)
    return asked(folder, COMP_WORDS=line, COMP_CWORD=place, _INGESTKIT_COMPLETE="complete_bash").split()


def zsh(folder: Path, line: str) -> str:
    return asked(folder, _TYPER_COMPLETE_ARGS=line, _INGESTKIT_COMPLETE="complete_zsh")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample project with its last delivery, run once."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(ROOT / "config", folder / "config")
    # One pipeline is enough to be offered where none is typed.
    (folder / "config/pipelines/network.yaml").unlink()
    settings = folder / "config/settings.yaml"
    settings.write_text(settings.read_text().replace("      network: {source: {settle: {quiet: 0s}}}\n", ""))
    for older in sorted((folder / "config/samples/opendata").iterdir())[:-1]:
        shutil.rmtree(older)
    subprocess.run([*COMMAND, "run"], cwd=folder, check=True, capture_output=True, timeout=120)
    return folder


def test_commands_and_those_of_a_group_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit qua") == ["quarantine"]
    assert bash(shop, "ingestkit queue ") == ["show", "flush"]
    assert "--if-locked" in bash(shop, "ingestkit run --")


def test_pipelines_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit run ") == ["opendata"]
    assert bash(shop, "ingestkit state set o") == ["opendata"]
    assert bash(shop, "ingestkit run x") == []
    assert zsh(shop, "ingestkit run ") == "_arguments '*: :((\"opendata\"))'\n"


def test_models_of_the_pipeline_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit run opendata --model h") == ["hcp", "hco"]
    assert bash(shop, "ingestkit drift list --model li") == ["license"]
    assert '"parenthco"' in zsh(shop, "ingestkit run opendata --model ")


def test_runs_and_their_batches_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit runs show ") == [DONE]
    assert bash(shop, "ingestkit approve open") == [DONE]
    assert bash(shop, "ingestkit manifest show --run-id o") == [DONE]
    assert bash(shop, "ingestkit backfill opendata --batch 2026") == ["20260118_180000"]


def test_of_several_pipelines_the_one_that_was_typed_counts(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "config", tmp_path / "config")
    shutil.copytree(shop / "state", tmp_path / "state")
    (tmp_path / "config/pipelines/other.yaml").write_text("pipeline: other\nmodels: {sale: {}}\n")
    assert bash(tmp_path, "ingestkit run ") == ["opendata", "other"]
    assert bash(tmp_path, "ingestkit run other --model ") == ["sale"]
    assert bash(tmp_path, "ingestkit run --jobs 2 opendata --model h") == ["hcp", "hco"]
    assert bash(tmp_path, "ingestkit run --model ") == []
    assert bash(tmp_path, "ingestkit backfill other --batch ") == []
    assert bash(tmp_path, "ingestkit backfill opendata --batch ") == ["20260118_180000"]


def test_queries_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit query latest") == ["latest-runs"]


def test_profiles_and_words_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit --profile ") == ["local", "prod", "cloud"]
    assert bash(shop, "ingestkit run --if-locked w") == ["wait:10m"]
    assert bash(shop, "ingestkit plan --output nd") == ["ndjson"]


def test_words_that_an_option_takes_are_offered(shop: Path) -> None:
    assert bash(shop, "ingestkit manifest show --status l") == ["landed", "loaded"]
    assert bash(shop, "ingestkit runs list --status SU") == ["SUCCESS", "SUCCESS_WITH_REJECTS", "SUPERSEDED"]
    assert bash(shop, "ingestkit quarantine list --status a") == ["all"]
    assert bash(shop, "ingestkit new source crm --type ") == ["files", "vault"]
    assert bash(shop, "ingestkit backfill opendata --from 2026") == ["20260118_180000"]
    assert bash(shop, "ingestkit backfill opendata --to ") == ["20260118_180000"]


def test_the_rules_that_closed_a_run_are_offered(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "config", tmp_path / "config")
    strict = {"INGESTKIT__PIPELINES__OPENDATA__GATE__MAX_REJECT_PCT": "0"}
    run = subprocess.run(
        [*COMMAND, "run"], cwd=tmp_path, env={**os.environ, **strict}, capture_output=True, timeout=120, check=False
    )
    assert run.returncode == 6
    assert bash(tmp_path, f"ingestkit approve {DONE} --rule ") == ["reject_rate"]
    assert bash(tmp_path, "ingestkit approve --rule ") == []
    assert bash(shop, f"ingestkit approve {DONE} --rule ") == []


def test_another_project_is_meant_when_it_is_named(shop: Path, tmp_path: Path) -> None:
    assert bash(tmp_path, f"ingestkit --project {shop} run ") == ["opendata"]
    assert bash(tmp_path, f"ingestkit --project {shop} runs show ") == [DONE]


def test_outside_a_project_nothing_is_offered_and_nothing_is_said(tmp_path: Path) -> None:
    for line in ("run ", "run --model ", "runs show ", "backfill --batch ", "--profile "):
        assert bash(tmp_path, f"ingestkit {line}") == []


def test_what_cannot_be_read_is_not_spoken_of(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "config", tmp_path / "config")
    (tmp_path / "config/settings.yaml").write_text("connections: [broken\n")
    (tmp_path / "config/pipelines/opendata.yaml").write_text("models: {hcp: , hco: [\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/ingestkit.db").write_text("this is no database, though it is as long as one would have to be")
    assert bash(tmp_path, "ingestkit run ") == ["opendata"]
    assert bash(tmp_path, "ingestkit run --model h") == []
    assert bash(tmp_path, "ingestkit --profile ") == []
    assert bash(tmp_path, "ingestkit runs show ") == []
    (tmp_path / "config/settings.yaml").unlink()
    assert bash(tmp_path, "ingestkit runs show ") == []


def test_asking_for_runs_makes_no_state(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "config", tmp_path / "config")
    assert bash(tmp_path, "ingestkit runs show ") == []
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_bash_takes_what_show_completion_prints(shop: Path, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "ingestkit").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{COMMAND[2]}' \"$@\"\n")
    (tmp_path / "ingestkit").chmod(0o755)
    script = """
    eval "$(ingestkit --show-completion bash)"
    complete -p ingestkit
    COMP_WORDS=(ingestkit run o) COMP_CWORD=2
    _ingestkit_completion ingestkit
    echo "${COMPREPLY[@]}"
    """
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=shop, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-2:] == ["complete -o default -F _ingestkit_completion ingestkit", "opendata"]
