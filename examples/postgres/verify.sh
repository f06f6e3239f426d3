#!/bin/bash
# Restores a dump into a server that is thrown away, and asks it a question whose answer must be true.
set -euo pipefail
as_postgres() { runuser -u postgres -- env PATH="$PATH" PGHOST=/tmp PGDATA=/tmp/data "$@"; }

as_postgres initdb --locale=C.UTF-8 --encoding=UTF8 --no-sync > /tmp/log 2>&1 || { cat /tmp/log >&2; exit 1; }
as_postgres pg_ctl start --silent --wait --log=/tmp/data/log -o "-c listen_addresses= -c unix_socket_directories=/tmp -c fsync=off"
as_postgres createdb shop
as_postgres pg_restore --exit-on-error --dbname=shop < /backups/shop.dump
answer=$(as_postgres psql --no-align --tuples-only --dbname=shop --command="$1")
[ "$answer" = t ] || { echo "\"$1\" gives $answer" >&2; exit 1; }
echo "verified"
