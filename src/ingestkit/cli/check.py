"""`check`: everything a pipeline needs, looked at."""

import typer

from ingestkit.cli import opening, options, render
from ingestkit.cli.options import Output


def check(
    ctx: typer.Context,
    *,
    pipeline: options.PipelineName = None,
    output: options.OutputFormat = Output.TEXT,
) -> int:
    """Look at everything a pipeline needs, configuration to state: one line each, with the fix."""
    from ingestkit import check as checks

    loaded = opening.project_of(ctx)
    names = [pipeline] if pipeline is not None else sorted(loaded.pipelines())
    lines, code = [], 0
    for name in names:
        with opening.deciding(ctx, name) as session:
            for finding in checks.examine(session):
                trouble = finding.trouble
                code = code or (trouble.exit_code if trouble else 0)
                lines.append(
                    {
                        "what": finding.what,
                        "status": "failed" if trouble else "ok",
                        "trouble": trouble.message if trouble else None,
                        "fix": trouble.hint if trouble else None,
                    }
                )
    render.emit(lines, output)
    return code
