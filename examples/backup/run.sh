#!/bin/sh
# Pattern 301: a container as a binary. A backup container, linked to a running database, dumps it to the host; the dump is
# verified by restoring it into a second, empty server, row for row.
. "$(dirname "$0")/../lib.sh"
helper="$here/../helper"

mkdir "$scratch/secret" "$scratch/backups"
printf 'USER: backup\nPASS: %s\nROOT_PASS: %s\n' "$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')" "$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')" > "$scratch/secret/dbcreds.yml"
chmod 600 "$scratch/secret/dbcreds.yml"
for image in do_backups mariadb-helper mariadb-plain; do on_finish image $image; done
for volume in dbdata restored; do on_finish volume $volume; done
for container in database verify; do on_finish container $container; done

# SQL as the backup user, over a link to the given container; statements on standard input.
sql() {
    cauldron run --rm -i --link "$1:database" -v "$scratch/secret:/secret:ro" --entrypoint bash do_backups -c \
        'export MYSQL_PWD=$(awk -F": *" "/^PASS/ {print \$2}" /secret/dbcreds.yml); exec mysql -N -ubackup -h"$DATABASE_PORT_3306_TCP_ADDR"'
}

say "Images: a plain server, its helper, and the backup"
show build -q -t mariadb-plain -f "$helper/Dockerfile.server" "$helper"
show build -q -t mariadb-helper -f "$helper/Dockerfile.helper" "$helper"
show build -q -t do_backups "$here"

say "A helper prepares the data volume once, the plain server starts"
show run --rm -v dbdata:/var/lib/mysql -v "$scratch/secret:/secret:ro" mariadb-helper
show run -d --name database -v dbdata:/var/lib/mysql mariadb-plain
until_ok 60 cauldron exec database mysqladmin ping

say "Some rows to lose"
sql database <<'SQL'
USE shop;
CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, item VARCHAR(80) NOT NULL, price DECIMAL(8,2) NOT NULL);
INSERT INTO shop.orders (item, price) SELECT CONCAT('potion ', seq), seq * 1.25 FROM seq_1_to_1000;
SQL
sql database > "$scratch/before" <<'SQL'
SELECT * FROM shop.orders ORDER BY id;
SQL
[ "$(wc -l < "$scratch/before")" -eq 1000 ] || fail "the rows did not arrive"

say "The backup: a container as a binary"
show run --link database:database -v "$scratch/backups:/backups" -v "$scratch/secret:/secret:ro" --rm -it do_backups
dump=$(ls "$scratch"/backups/*.sql) || fail "no dump was written"
ls -l "$dump"

say "Verified by restoring it into a second, empty server"
show run --rm -v restored:/var/lib/mysql -v "$scratch/secret:/secret:ro" mariadb-helper
show run -d --name verify -v restored:/var/lib/mysql mariadb-plain
until_ok 60 cauldron exec verify mysqladmin ping
sql verify < "$dump"
sql verify > "$scratch/after" <<'SQL'
SELECT * FROM shop.orders ORDER BY id;
SQL
cmp "$scratch/before" "$scratch/after" || fail "the restored rows differ"

say "The same as a task: a dump of every running database, kept because a throw-away server could restore it"
cauldron rm --force verify > /dev/null
export BACKUPS="$scratch/backups" SECRET="$scratch/secret"
cd "$here"
show task run backup
show task history --last 3
show task backups backup
[ "$(cauldron task backups backup --format '{{.target}} {{ne .verified "no"}}')" = "database true" ] || fail "the dump was not verified"
sql database <<'SQL'
DROP TABLE shop.orders;
SQL
show task restore backup
sql database > "$scratch/restored" <<'SQL'
SELECT * FROM shop.orders ORDER BY id;
SQL
cmp "$scratch/before" "$scratch/restored" || fail "the restored rows differ"
cauldron down 2> /dev/null
if cauldron inspect database | grep -qF "$(awk '/^PASS/ {print $2}' "$scratch/secret/dbcreds.yml")"; then fail "a password shows in inspect"; fi
echo "backup: ok, 1000 rows restored, row for row"
