-- The database `sovereigncore` and its roles, for PostgreSQL 14 and later. By a superuser, with psql:
--
--   cat /etc/sovereigncore/database_passwords.psql roles.sql | psql -X
--
-- The first file sets the passwords and is written by scripts/setup_env.sh; roles whose password is not
-- set keep theirs. It may run again at any time, before and after migrations, and puts right what was
-- changed by hand. docs/how-to/postgresql.md explains sizes and times.
--
--   sovereigncore_owner  owns everything: migrations, the worker, backups and other commands.
--   sovereigncore_app    web processes: rows of all tables, but of the audit trail new ones only.
--   exporter             postgres_exporter: statistics, no rows. Made when its password is set.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = 'warning';
-- Passwords must not get into the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET password_encryption = 'scram-sha-256';

-- --- Roles ----------------------------------------------------------------------------------
SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['sovereigncore_owner', 'sovereigncore_app']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
-- Worker, migrations, a backup and operators' commands at one time.
ALTER ROLE sovereigncore_owner WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 30;
-- 16 for each web process, of all hosts together: ten of them.
ALTER ROLE sovereigncore_app WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 160;
\if :{?owner_password}
ALTER ROLE sovereigncore_owner PASSWORD :'owner_password';
\endif
\if :{?app_password}
ALTER ROLE sovereigncore_app PASSWORD :'app_password';
\endif
\if :{?exporter_password}
SELECT 'CREATE ROLE exporter' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'exporter') \gexec
ALTER ROLE exporter WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 5 PASSWORD :'exporter_password';
GRANT pg_monitor TO exporter;
ALTER ROLE exporter SET statement_timeout = '10s';
\endif

-- --- Times ----------------------------------------------------------------------------------
-- A web process gives up on a statement after 2 s: here it ends a moment later, also where nobody is
-- left to cancel it.
ALTER ROLE sovereigncore_app SET statement_timeout = '3s';
ALTER ROLE sovereigncore_app SET lock_timeout = '2s';
ALTER ROLE sovereigncore_app SET idle_in_transaction_session_timeout = '30s';
-- A migration or a backup may work for long. But whoever waits for a table makes all callers wait behind
-- it, so it gives up before they do; longer than the second after which autovacuum makes way.
ALTER ROLE sovereigncore_owner SET statement_timeout = '1h';
ALTER ROLE sovereigncore_owner SET lock_timeout = '1500ms';
ALTER ROLE sovereigncore_owner SET idle_in_transaction_session_timeout = '1h';
-- Statements hold what people wrote, and errors quote rows; neither belongs into the server's log.
SELECT format('ALTER ROLE %I SET %s', name, setting)
FROM unnest(ARRAY['sovereigncore_owner', 'sovereigncore_app']) AS name,
     unnest(ARRAY['log_statement = none', 'log_min_duration_statement = -1',
                  'log_min_error_statement = panic', 'log_error_verbosity = terse']) AS setting \gexec

-- --- The database ---------------------------------------------------------------------------
SELECT 'CREATE DATABASE sovereigncore OWNER sovereigncore_owner ENCODING ''UTF8'' TEMPLATE template0'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'sovereigncore') \gexec
ALTER DATABASE sovereigncore OWNER TO sovereigncore_owner;
REVOKE ALL ON DATABASE sovereigncore FROM PUBLIC;
GRANT CONNECT ON DATABASE sovereigncore TO sovereigncore_app;
\if :{?exporter_password}
GRANT CONNECT ON DATABASE sovereigncore TO exporter;
\endif

\connect sovereigncore
SET log_min_error_statement = 'panic';
-- Before PostgreSQL 15 it was the superuser's, and everybody could make tables in it.
ALTER SCHEMA public OWNER TO sovereigncore_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO sovereigncore_app;
-- Of tables that are still to come, in any schema: a restore makes them in one of its own, which web
-- processes may not use until its tables have moved to `public`. An event of the audit trail takes its
-- number before it is written; USAGE is to take the next one, not to set it.
ALTER DEFAULT PRIVILEGES FOR ROLE sovereigncore_owner
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO sovereigncore_app;
ALTER DEFAULT PRIVILEGES FOR ROLE sovereigncore_owner GRANT USAGE ON SEQUENCES TO sovereigncore_app;
BEGIN;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM sovereigncore_app;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM sovereigncore_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sovereigncore_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO sovereigncore_app;
-- Of the audit trail web processes add events and read it; sealing and archiving are the worker's. Migrations
-- take the same rights from everybody but the owner, also where a restore makes the tables anew.
SELECT format('REVOKE %s ON %s FROM sovereigncore_app', rights, to_regclass(name))
FROM (VALUES ('public.monitoring_auditevent', 'UPDATE, DELETE'),
             ('public.monitoring_auditseal', 'INSERT, UPDATE, DELETE'),
             ('public.monitoring_auditarchive', 'INSERT, UPDATE, DELETE')) AS trail (name, rights)
WHERE to_regclass(name) IS NOT NULL \gexec
COMMIT;
