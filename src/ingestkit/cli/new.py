"""`new`: files of a project proposed for a person to edit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingestkit.cli import completing, opening, options, render
from ingestkit.cli.options import Output
from ingestkit.errors import UsageError

if TYPE_CHECKING:
    from ingestkit.outcome import ModelResult
    from ingestkit.project import Project


def commands() -> typer.Typer:
    app = typer.Typer(help="Propose files of a project, to be edited.")
    app.callback()(_group)
    app.command("pipeline")(pipeline)
    app.command("source")(source)
    return app


def _group() -> None:
    """Propose files of a project, to be edited."""


def pipeline(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pipeline's name.")],
    from_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-file", metavar="FILE", help="A sample; may be given again, one per model.", show_envvar=False
        ),
    ] = None,
    from_accelerator: Annotated[
        Path | None,
        typer.Option(
            "--from-accelerator",
            metavar="DIR",
            help="The folder of vapil_settings.json and connector_config.json, for a pipeline of a Vault.",
            show_envvar=False,
        ),
    ] = None,
    connection: Annotated[
        str | None,
        typer.Option(
            "--connection",
            metavar="NAME",
            help="Where the files come from; else drop, or my_vault. One of a Vault needs no samples.",
            show_envvar=False,
        ),
    ] = None,
    logs: Annotated[
        bool, typer.Option("--logs", help="Of a Vault: the logs of each day, and not its objects.", show_envvar=False)
    ] = False,
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Write a pipeline file of a Vault, or from samples: dialect, types, required columns, keys; to be edited."""
    from ingestkit import connecting, proposing

    loaded = opening.project_of(ctx)
    _require_name(name, "a pipeline")
    path = loaded.root / "config" / "pipelines" / f"{name}.yaml"
    if name in loaded.pipelines():
        raise UsageError(f"pipeline {name} is there already", hint=f"look at it: {path}")
    if from_accelerator is not None and not from_file and not logs:
        _taken_over(loaded, name, path, from_accelerator, connection or "my_vault", output)
        return
    if connection is not None and not from_file and connecting.is_vault(loaded.settings.connections.get(connection)):
        _laid(path, proposing.of_vault(name, connection, logs=logs))
        render.emit({"file": str(path), "pipeline": name, "next": f"ingestkit check {name}"}, output)
        return
    if logs or from_accelerator is not None or not from_file:
        raise UsageError(
            "a pipeline is proposed from samples, by --from-file, of a Vault, by --connection, or from an accelerator, "
            "by --from-accelerator",
            hint=f"ingestkit new pipeline {name} --from-file FILE",
        )
    connection = connection or "drop"
    connecting.require_source(loaded.settings.connections, connection)
    proposed = [proposing.propose(one) for one in from_file]
    models = [one.name for one in proposed]
    if len(set(models)) < len(models):
        raise UsageError(f"two samples would be one model: {', '.join(models)}")
    text = proposing.written(name, connection, proposed)
    accepted = _tried(name, proposing.written(name, "drop", proposed), from_file)
    _laid(path, text)
    found = [
        {
            "model": one.model,
            "rows": one.rows,
            "rejected": one.rejected,
            "columns": len(model.columns),
            "key": model.key,
        }
        for one, model in zip(accepted, sorted(proposed, key=lambda each: each.name), strict=True)
    ]
    said = f"look at every line of it, then: ingestkit check {name}"
    render.emit({"file": str(path), "pipeline": name, "accepted": found, "message": said}, output)


def _laid(path: Path, text: str) -> None:
    from ingestkit import files

    with opening.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace_whole(path, text.encode())


def _taken_over(loaded: "Project", name: str, path: Path, folder: Path, connection: str, output: Output) -> None:
    """The connection and the pipeline that an accelerator's files say."""
    from ingestkit import accelerator, configuration, connecting

    _require_name(connection, "a connection")
    taken = accelerator.taken(folder, connection)
    settings = configuration.settings_file(loaded.root)
    if settings is None:
        raise UsageError("the project has no config/settings.yaml", hint="ingestkit init --empty")
    if connection in loaded.settings.connections:
        raise UsageError(f"connection {connection} is there already", hint="name another one: --connection NAME")
    with opening.writing(settings):
        place, line = connecting.connect(settings, loaded.profile, connection, taken.connection)
    _laid(path, taken.text(name))
    shown = {
        "file": str(path),
        "pipeline": name,
        "below": place,
        "line": line,
        "secrets": ", ".join(taken.secrets),
        "left": "; ".join(taken.left) or None,
        "next": f"set {taken.secrets[0]} in the environment, then: ingestkit check {name}",
    }
    render.emit(shown, output)


def source(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The connection's name.")],
    url: Annotated[
        str,
        typer.Option(
            "--url",
            metavar="URL",
            help="Where it is: a folder, sftp://USER@HOST/FOLDER, or https://USER@HOST.",
            show_envvar=False,
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="What kind of source: files, or vault.",
            show_envvar=False,
            autocompletion=completing.source_kinds,
        ),
    ] = "files",
    output: options.OutputFormat = Output.TEXT,
) -> None:
    """Add the connection of a source to the settings, and say what a pipeline that reads from it begins with."""
    from ingestkit import configuration, connecting

    loaded = opening.project_of(ctx)
    _require_name(name, "a connection")
    connection = connecting.connection_of(kind, url)
    path = configuration.settings_file(loaded.root)
    if path is None:
        raise UsageError("the project has no config/settings.yaml", hint="ingestkit init --empty")
    if name in loaded.settings.connections:
        raise UsageError(f"connection {name} is there already", hint="ingestkit config show --origin")
    with opening.writing(path):
        place, line = connecting.connect(path, loaded.profile, name, connection)
    shown = {"file": str(path), "below": place, "line": line}
    render.emit(shown | _after(kind, name), output)


def _after(kind: str, name: str) -> dict[str, str]:
    """What a pipeline that reads from the new connection begins with, and how it is made."""
    from ingestkit import connecting

    if kind == "vault":
        secret = f"set {connecting.VARIABLE} in the environment"
        return {
            "source": f"{{type: vault, connection: {name}}}",
            "next": f"{secret}, then: ingestkit new pipeline vault --connection {name}",
        }
    return {
        "source": f"{{type: files, connection: {name}, batches: {{folders: '(?P<batch>[^/]+)', kind: text}}}}",
        "next": f"ingestkit new pipeline PIPELINE --from-file SAMPLE --connection {name}",
    }


def _require_name(name: str, what: str) -> None:
    import re

    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) is None:
        raise UsageError(f"{name!r} is no name of {what}: small letters, digits and _, and a letter first")


def _tried(name: str, text: str, samples: Sequence[Path]) -> "Sequence[ModelResult]":
    """What a run makes of the samples under the proposal, by the real machinery in a folder of its own."""
    import json
    import shutil
    import tempfile

    from ingestkit import project, rehearsing
    from ingestkit.cli import progress
    from ingestkit.pipeline import Stop, SystemClock
    from ingestkit.working import RunOptions

    with tempfile.TemporaryDirectory(prefix="ingestkit-") as folder:
        root = Path(folder)
        (root / "config" / "pipelines").mkdir(parents=True)
        (root / "config" / "pipelines" / f"{name}.yaml").write_text(text, encoding="utf-8")
        places = {
            "drop": {"type": "local", "path": "drop"},
            "lake": {"type": "local", "path": "lake"},
            "warehouse": {"type": "duckdb", "path": "warehouse.duckdb"},
        }
        flags = {f"pipelines.{name}.source.settle.quiet": "0s"}
        (root / "config" / "settings.yaml").write_text(json.dumps({"connections": places}))
        (root / "drop" / "sample").mkdir(parents=True)
        for sample in samples:
            shutil.copy(sample, root / "drop" / "sample" / sample.name)
        stop = Stop()
        loaded = project.load(root, environ={}, flags=flags)
        told = progress.NoProgress()
        session = loaded.rehearse(name, clock=SystemClock(stop), stop=stop, progress=told, jobs=None, writes=True)
        try:
            outcome = rehearsing.rehearse(session, RunOptions(), None)
        finally:
            session.closing.close()
    refused = [one for one in outcome.results if one.rejected]
    if outcome.exit_code or refused:
        why = (
            outcome.message if outcome.exit_code else f"{refused[0].rejected:,} records of {refused[0].model} break it"
        )
        raise UsageError(f"no contract that was found accepts the sample: {why}", hint="write the file by hand")
    return outcome.results
