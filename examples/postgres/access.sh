# Sourced: the linked database's address, and a password file that no process list shows.
set -euo pipefail
export PGHOST=$DATABASE_PORT_5432_TCP_ADDR PGUSER=postgres PGPASSFILE=/tmp/pgpass
(umask 077 && printf '*:*:*:*:%s\n' "$(cat /run/secrets/postgres)" > "$PGPASSFILE")
