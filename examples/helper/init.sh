#!/bin/bash
# Prepares an empty data directory: system tables, a database, a user for backups, a root password. The passwords come from
# files below /secret, never from the environment.
set -euo pipefail
pass() { awk -v key="$1" -F': *' '$1 == key {print $2}' /secret/dbcreds.yml; }

install -d -o mysql -g mysql /run/mysqld
mariadb-install-db --datadir="$DATADIR" --user=mysql --skip-test-db > /tmp/init.log 2>&1 || { cat /tmp/init.log >&2; exit 1; }
chown -R mysql:mysql "$DATADIR"

# The server reads the statements from a file before it listens, then stops: nothing to wait for, nothing to race with.
statements=$(mktemp)
chown mysql "$statements"
cat > "$statements" <<SQL
FLUSH PRIVILEGES;
CREATE DATABASE ${DB_NAME};
CREATE USER 'backup'@'%' IDENTIFIED BY '$(pass PASS)';
GRANT ALL PRIVILEGES ON *.* TO 'backup'@'%';
ALTER USER 'root'@'localhost' IDENTIFIED BY '$(pass ROOT_PASS)';
FLUSH PRIVILEGES;
SHUTDOWN;
SQL
mariadbd --user=mysql --datadir="$DATADIR" --skip-networking --init-file="$statements" 2> /tmp/init.log || { cat /tmp/init.log >&2; exit 1; }
rm -f "$statements"
echo "initialised $DATADIR with database $DB_NAME"
