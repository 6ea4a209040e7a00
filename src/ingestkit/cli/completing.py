"""What a shell may offer while a command line is typed. Where nothing can be known, nothing is offered or said."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ingestkit.errors import IngestkitError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ingestkit.project import Project

RECENT = 50
"""Of so many runs ids and batches are offered, newest first."""
PATIENCE = 0.3
"""For how many seconds a shell waits for a state that is busy."""


def pipelines(ctx: typer.Context, incomplete: str) -> list[str]:
    from ingestkit import configuration

    return _offered(incomplete, lambda: configuration.pipeline_files(_root(ctx)))


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """The models of the pipeline that was typed, or of the only one; as its file has them, be it right or wrong."""
    from ingestkit import configuration, layers

    def named() -> Iterable[str]:
        files = configuration.pipeline_files(_root(ctx))
        name = _pipeline(ctx, files) or (next(iter(files)) if len(files) == 1 else None)
        if name is None:
            return ()
        file = files[name]
        held = layers.below(layers.read_file(file, file.name, "file"), "models")
        return held.value if held is not None and isinstance(held.value, dict) else ()

    return _offered(incomplete, named)


def profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    from ingestkit import configuration

    return _offered(incomplete, lambda: configuration.profiles(_root(ctx)))


def queries(ctx: typer.Context, incomplete: str) -> list[str]:
    from ingestkit.states import queries as of_operators

    return _offered(incomplete, lambda: of_operators.known(_root(ctx)))


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    return _offered(incomplete, lambda: _of_runs(ctx, "run_id"))


def batches(ctx: typer.Context, incomplete: str) -> list[str]:
    """Batches there were runs of; of those that wait only the source could tell, and nobody waits for it here."""
    return _offered(incomplete, lambda: _of_runs(ctx, "batch"))


def rules(ctx: typer.Context, incomplete: str) -> list[str]:
    """The rules that closed the run which was typed."""
    return _offered(incomplete, lambda: _closing(ctx))


def file_statuses(incomplete: str) -> list[str]:
    from ingestkit.model import FileStatus

    return _offered(incomplete, lambda: FileStatus)


def run_statuses(incomplete: str) -> list[str]:
    from ingestkit.model import RunStatus

    return _offered(incomplete, lambda: RunStatus)


def reject_statuses(incomplete: str) -> list[str]:
    from ingestkit.cli.quarantine import KNOWN

    return _offered(incomplete, lambda: (*KNOWN, "all"))


def source_kinds(incomplete: str) -> list[str]:
    from ingestkit.connecting import SCHEMES

    return _offered(incomplete, lambda: SCHEMES)


def lock_policies(incomplete: str) -> list[str]:
    return _offered(incomplete, lambda: ("fail", "skip", "wait:10m"))


def _offered(incomplete: str, known: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return [one for one in dict.fromkeys(known()) if one.startswith(incomplete)]
    except (IngestkitError, OSError):
        # Whoever types is in the midst of a line: a message would only tear it apart.
        return []


def _of_runs(ctx: typer.Context, column: str) -> Iterable[str]:
    from ingestkit.states import views

    loaded = _project(ctx)
    wanted = {"pipeline": _pipeline(ctx, loaded.pipelines())}
    return _read(loaded, lambda conn: [str(row[column]) for row in views.runs(conn, wanted, limit=RECENT)])


def _closing(ctx: typer.Context) -> Iterable[str]:
    from ingestkit.states import views

    def failed(conn: "Connection") -> list[str]:
        found = (views.run_details(conn, word) for word in ctx.find_root().args)
        return [rule["name"] for run in found if run is not None for rule in run["rules"] if rule["passed"] is False]

    return _read(_project(ctx), failed)


def _read(loaded: "Project", ask: "Callable[[Connection], list[str]]") -> list[str]:
    """What the state answers, if there is one and it is not busy."""
    from sqlalchemy.exc import SQLAlchemyError

    from ingestkit.project import STATES, below_root, registered
    from ingestkit.states.engine import absent

    url = below_root(loaded.secrets.resolve(loaded.settings.state.url, "state.url"), loaded.root)
    if absent(url):
        # Opening it would make it.
        return []
    state = registered(STATES, "sql").connect(url, PATIENCE)
    try:
        with state.read() as conn:
            return ask(conn)
    except SQLAlchemyError:
        return []
    finally:
        state.close()


def _pipeline(ctx: typer.Context, known: Iterable[str]) -> str | None:
    """The pipeline that was typed. Behind an option that waits for its value no argument is parsed, only kept."""
    names = set(known)
    return next((word for word in ctx.find_root().args if word in names), None)


def _project(ctx: typer.Context) -> "Project":
    from ingestkit import project

    said = ctx.find_root().params
    return project.load(_root(ctx), profile=said.get("profile"), env_file=said.get("env_file"))


def _root(ctx: typer.Context) -> Path:
    """The project's folder; the flags before the command are parsed, but nothing was done with them."""
    from ingestkit import project

    said: Any = ctx.find_root().params.get("project")
    return project.find(Path(said) if said else Path.cwd())
