"""`--version`: which ingestkit this is, and what it runs on; told without importing any of it."""

import platform
from importlib.metadata import PackageNotFoundError, version

USED = (
    *("duckdb", "pyarrow", "sqlalchemy", "alembic", "pydantic", "typer"),
    *("psycopg", "paramiko", "cryptography", "boto3"),
    *("azure-identity", "azure-storage-blob", "azure-storage-file-datalake", "snowflake-connector-python"),
    *("opentelemetry-proto", "protobuf", "requests"),
)
"""What a report of a problem should name; those that are extras only where they are installed."""


def told() -> str:
    """A name and a version per line, the first of them our own."""
    import sqlite3

    lines = [f"ingestkit {version('ingestkit')}", f"python {platform.python_version()}"]
    for name in USED:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return "\n".join([*lines, f"sqlite {sqlite3.sqlite_version}", f"platform {platform.platform()}"])
