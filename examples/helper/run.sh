#!/bin/sh
# Pattern 302: a helper prepares the data volume once; the plain server just starts.
. "$(dirname "$0")/../lib.sh"

mkdir "$scratch/secret"
printf 'USER: backup\nPASS: %s\nROOT_PASS: %s\n' "$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')" "$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')" > "$scratch/secret/dbcreds.yml"
chmod 600 "$scratch/secret/dbcreds.yml"
for image in mariadb-helper mariadb-plain; do on_finish image $image; done
on_finish volume helper-dbdata
on_finish container helper-database

say "Two images: a plain server, and a helper on top of it"
show build -q -t mariadb-plain -f "$here/Dockerfile.server" "$here"
show build -q -t mariadb-helper -f "$here/Dockerfile.helper" "$here"

say "Without its helper the server dies (like a sad little mayfly)"
timeout 60 "$CAULDRON" run --rm mariadb-plain || true
if cauldron ps | grep -q mariadb-plain; then fail "the server runs on an empty volume"; fi
echo "it did"

say "The helper first, and just once"
show run --rm -v helper-dbdata:/var/lib/mysql -v "$scratch/secret:/secret:ro" mariadb-helper

say "Then the plain server"
show run -d --name helper-database -v helper-dbdata:/var/lib/mysql mariadb-plain
until_ok 60 cauldron exec helper-database mysqladmin ping
show run --rm --link helper-database:database -v "$scratch/secret:/secret:ro" --entrypoint bash mariadb-plain -c \
    'p=$(awk "/^PASS/ {print \$2}" /secret/dbcreds.yml); MYSQL_PWD=$p mysql -ubackup -h"$DATABASE_PORT_3306_TCP_ADDR" -e "SHOW DATABASES"' > "$scratch/databases"
grep -qx shop "$scratch/databases" || fail "the database that the helper made is not there"

say "Restarted, the server needs no helper"
show restart helper-database
until_ok 60 cauldron exec helper-database mysqladmin ping

say "The same, declared: up runs the helper when the server needs it, and just once for a volume"
on_finish container helper-example-database-1
on_finish volume helper-example_dbdata
export SECRET="$scratch/secret"
cd "$here"
show up -d
until_ok 60 cauldron exec helper-example-database-1 mysqladmin ping
show down
show up -d
until_ok 60 cauldron exec helper-example-database-1 mysqladmin ping
show helper status
[ "$(cauldron task history database-init --quiet | wc -l)" -eq 1 ] || fail "the helper ran more than once"
show down --volumes
echo "helper: ok"
