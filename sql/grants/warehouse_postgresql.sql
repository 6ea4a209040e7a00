-- Least rights on a warehouse in PostgreSQL. Run by psql in its database, by a superuser or the owner of the database:
--   psql -d warehouse -v schema=raw -f sql/grants/warehouse_postgresql.sql
-- Without `schema` it is public. The role that connections name in `user` logs in under a password of its own:
--   CREATE ROLE loader LOGIN PASSWORD '...' IN ROLE ingestkit_warehouse;
-- What it makes there it owns, and nobody else may change. Where several log in for it, all of them work as the one:
--   ALTER ROLE loader SET role TO ingestkit_warehouse;

\if :{?schema}
\else
    \set schema public
\endif

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ingestkit_warehouse') THEN
        CREATE ROLE ingestkit_warehouse NOLOGIN;
    END IF;
    -- A merge brings its rows into a temporary table first.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO ingestkit_warehouse', current_database());
END
$$;

CREATE SCHEMA IF NOT EXISTS :"schema";
GRANT USAGE, CREATE ON SCHEMA :"schema" TO ingestkit_warehouse;
