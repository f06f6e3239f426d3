#!/bin/bash
# Restores a dump into a server that is thrown away, and asks it a question whose answer must be 1.
set -euo pipefail
data=$(mktemp -d) socket=/tmp/verify.sock
install -d -o mysql -g mysql /run/mysqld
chown mysql "$data"
mariadb-install-db --datadir="$data" --user=mysql --skip-test-db > /tmp/log 2>&1 || { cat /tmp/log >&2; exit 1; }
mariadbd --user=mysql --datadir="$data" --skip-networking --socket="$socket" 2> /tmp/log &
for _ in $(seq 60); do mysqladmin --socket="$socket" ping > /dev/null 2>&1 && break; sleep 1; done
cat /backups/*.sql | mysql --socket="$socket" || { cat /tmp/log >&2; exit 1; }
answer=$(mysql --socket="$socket" --skip-column-names -e "$1")
[ "$answer" = 1 ] || { echo "\"$1\" gives $answer" >&2; exit 1; }
echo "verified"
