#!/bin/bash
# Prepares an empty data directory: system tables, a database, who may come from where. The password comes from a secret.
set -euo pipefail
as_postgres() { runuser -u postgres -- env PATH="$PATH" "$@"; }

chown postgres: "$PGDATA"
chmod 700 "$PGDATA"
as_postgres initdb --pgdata="$PGDATA" --encoding=UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=scram-sha-256 \
    --pwfile=/run/secrets/postgres > /tmp/init.log 2>&1 || { cat /tmp/init.log >&2; exit 1; }
echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
echo "CREATE DATABASE shop" | as_postgres postgres --single -D "$PGDATA" postgres > /tmp/init.log 2>&1 || { cat /tmp/init.log >&2; exit 1; }
echo "initialised $PGDATA with database shop"
