#!/bin/sh
# Run by the image of PostgreSQL once, when it has made an empty database: our roles and our database,
# with the passwords that scripts/setup_env.sh --compose made. deploy/postgresql/roles.sql may be run
# again at any time; docs/how-to/deploy-with-compose.md says how.
set -eu
cat /run/secrets/DATABASE_PASSWORDS /etc/sovereigncore/roles.sql | psql -X -v ON_ERROR_STOP=1 --username postgres --dbname postgres
