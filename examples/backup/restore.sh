#!/bin/bash
# Puts a dump into the linked database.
set -euo pipefail
export MYSQL_PWD=$(awk -F": *" "/^PASS/ {print \$2}" /secret/dbcreds.yml)
cat /backups/*.sql | mysql -ubackup -h"$DATABASE_PORT_3306_TCP_ADDR"
echo "restored $(ls /backups) into $TARGET_NAME"
