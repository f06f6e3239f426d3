#!/bin/sh
# Patterns 301 and 302 with PostgreSQL, declared in compose.yaml: a helper prepares the volume once, a plain server runs on it, a task
# dumps every such server, and a dump counts once a throw-away server has restored it.
. "$(dirname "$0")/../lib.sh"
cd "$here"
export BACKUPS="$scratch/backups" SECRET="$scratch/password"
mkdir "$BACKUPS"
(umask 077 && od -An -N12 -tx1 /dev/urandom | tr -d ' \n' > "$SECRET")
on_finish image postgres-plain
on_finish volume postgres-example_pgdata
on_finish container postgres-example-database-1

# One statement, as the server's own user inside its container.
sql() { cauldron compose exec -T database psql --no-align --tuples-only --dbname=shop --command="$1"; }

say "The server, after its helper"
show up -d --wait --build
show helper status
sql "CREATE TABLE orders AS SELECT n AS id, 'potion ' || n AS item, n * 1.25 AS price FROM generate_series(1, 1000) AS n"
sql "SELECT * FROM orders ORDER BY id" > "$scratch/before"
[ "$(wc -l < "$scratch/before")" -eq 1000 ] || fail "the rows did not arrive"

say "Made anew, the server finds its data: the helper does not run again"
show down
show up -d --wait
sql "SELECT * FROM orders ORDER BY id" | cmp - "$scratch/before" || fail "the rows are not there"

say "A dump of every running database, verified"
show task run backup
show task backups backup
[ "$(cauldron task backups backup --format '{{ne .verified "no"}}')" = "true" ] || fail "the dump was not verified"

say "Lost, and put back"
sql "DROP TABLE orders"
show task restore backup
sql "SELECT * FROM orders ORDER BY id" | cmp - "$scratch/before" || fail "the restored rows differ"
if cauldron inspect postgres-example-database-1 | grep -qF "$(cat "$SECRET")"; then fail "the password shows in inspect"; fi
show down -v
echo "postgres: ok, 1000 rows restored, row for row"
