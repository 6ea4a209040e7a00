"""Where Alembic runs migrations: on the connection, and inside the transaction, that `migrate` gives it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="ingestkit_version")
context.run_migrations()
