-- Least rights on a warehouse in Snowflake. Run by who may grant there (SECURITYADMIN, or the owner of the database):
--   snow sql -f sql/grants/warehouse_snowflake.sql -D database=RAW -D schema=PUBLIC -D warehouse=LOADING -D user=LOADER
-- What a process leaves open when it dies is ended by the next one of the same user: a user needs no right to see and end
-- its own transactions. Of another user's only an administrator of the account may; what such a one holds goes by itself
-- after five minutes.
-- The role owns what it makes there, and nobody else may change it. Tables that others made need OWNERSHIP given to it,
-- and so do tables of rejects, fences, receipts and the stage where another role made them: ingestkit check names each that
-- this role is shown, and the statement that gives it. What it has no right on it is not shown.

CREATE ROLE IF NOT EXISTS INGESTKIT_WAREHOUSE;
GRANT USAGE ON WAREHOUSE <% warehouse %> TO ROLE INGESTKIT_WAREHOUSE;
GRANT USAGE ON DATABASE <% database %> TO ROLE INGESTKIT_WAREHOUSE;
GRANT USAGE ON SCHEMA <% database %>.<% schema %> TO ROLE INGESTKIT_WAREHOUSE;
-- Fences, receipts, targets and tables of rejects. What a merge reads from is temporary, and needs no right.
GRANT CREATE TABLE ON SCHEMA <% database %>.<% schema %> TO ROLE INGESTKIT_WAREHOUSE;
-- Where the connection names an external stage: USAGE ON that STAGE instead of CREATE STAGE.
GRANT CREATE STAGE ON SCHEMA <% database %>.<% schema %> TO ROLE INGESTKIT_WAREHOUSE;
GRANT ROLE INGESTKIT_WAREHOUSE TO USER <% user %>;
