"""`check`: everything a pipeline needs, looked at."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output

if TYPE_CHECKING:
    from ingestkit.errors import IngestkitError
    from ingestkit.project import Project


def check(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    pin: Annotated[bool, typer.Option("--pin", help="Show host keys that are not known, and trust them.")] = False,
    yes: options.Yes = False,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Look at everything a pipeline needs, configuration to state: one line each, with the fix."""
    from ingestkit import check as checks

    loaded = opening.project_of(ctx)
    names = [pipeline] if pipeline is not None else sorted(loaded.pipelines())
    lines: list[dict[str, Any]] = []
    code = 0
    for name in names:
        if pin:
            lines += _pinned(loaded, name, yes=yes)
        with opening.deciding(ctx, name) as session:
            for finding in checks.examine(session):
                trouble = finding.trouble
                code = code or (trouble.exit_code if trouble else 0)
                lines.append(_line(finding.what, trouble))
    render.emit(lines, output)
    return code


def _line(what: str, trouble: "IngestkitError | None" = None) -> dict[str, Any]:
    return {
        "what": what,
        "status": "failed" if trouble else "ok",
        "trouble": trouble.message if trouble else None,
        "fix": trouble.hint if trouble else None,
    }


def _pinned(loaded: "Project", name: str, *, yes: bool) -> list[dict[str, Any]]:
    """Ask about each host key that a pipeline's server shows and that is not known, and write it down."""
    server = loaded.server(name)
    if server is None:
        return []
    from ingestkit.errors import ConfigError
    from ingestkit.sources import ssh

    keys = [key for key in ssh.presented(server) if not ssh.is_trusted(server, key)]
    if keys and server.settings.host_keys:
        raise ConfigError(
            f"connection {server.connection} says its host_keys itself, and {server.name} shows {keys[0].fingerprint}",
            hint="add that there, if its operator says it is right",
        )
    known = ", ".join(key.fingerprint for key in server.known())
    found = []
    for key in keys:
        other = f" Known until now: {known}." if known else ""
        question = (
            f"{server.name} shows host key {key.fingerprint} ({key.type}).{other} Is it right, and to be trusted?"
        )
        opening.confirm_or_refuse(question, yes=yes)
        file = ssh.pin(server, [key])
        found.append(_line(f"{name}: host key {key.fingerprint} of {server.name} is in {file}"))
    return found
