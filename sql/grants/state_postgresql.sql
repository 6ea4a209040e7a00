-- Least rights on the state in PostgreSQL. Run by the owner of its tables, in its database, after `ingestkit state upgrade`
-- and again after each upgrade that brings a table. Roles log in under names and passwords of their own:
--   CREATE ROLE loader LOGIN IN ROLE ingestkit_runner;
-- Only the owner of the tables may upgrade them.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ingestkit_runner') THEN
        CREATE ROLE ingestkit_runner NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ingestkit_reader') THEN
        CREATE ROLE ingestkit_reader NOLOGIN;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA public TO ingestkit_runner, ingestkit_reader;

-- Who runs pipelines: writes rows, and makes no tables.
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO ingestkit_runner;
REVOKE INSERT, UPDATE ON ingestkit_version FROM ingestkit_runner;
-- Rejects are listed anew with each attempt, and a reset forgets what was completed; nothing else is taken away.
GRANT DELETE ON quarantine, completion TO ingestkit_runner;
-- What was decided stays as it was written.
REVOKE UPDATE ON decision FROM ingestkit_runner;

-- Who only looks: plan, runs, manifest, quarantine, query.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ingestkit_reader;
